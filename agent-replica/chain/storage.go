package chain

import "vmreplica/internal/disk"

// Storage makes, opens and deletes the files that records name. Names are below the storage directory; failures
// carry the path an operator would look for.
type Storage interface {
	// Vacant answers BASE_EXISTS when anything lies where a base is to be made.
	Vacant(file string) error
	// CreateBase makes a sparse base that reads as zeros, durably. BASE_EXISTS when something lies there, but for
	// what the caller knows to have begun itself: with begun, a file without content is completed.
	CreateBase(file string, size int64, begun bool) error
	// Exists answers BASE_MISSING when the file is not there.
	Exists(file string) error
	// OpenBase opens and locks a base for writing. BASE_MISSING when it is not there, IMAGE_IN_USE when another
	// program has it, REPLICA_RECORD_MISMATCH when its stamp is not b.Stamp, unless that is zero.
	OpenBase(b Base, sectorSize int) (disk.Disk, error)
	// CreateLayer makes an empty layer, durably. A file of that name is an error.
	CreateLayer(file string, size int64) (disk.Layer, error)
	// OpenLayer opens a layer; BASE_MISSING when it is not there.
	OpenLayer(file string) (disk.Layer, error)
	// Remove deletes files, durably when it returns; one that is not there is no error.
	Remove(files ...string) error
	// RemoveDirectory deletes a directory; one that is not empty stays and is no error.
	RemoveDirectory(directory string) error
	// Stamp is a base's present stamp.
	Stamp(b Base) (disk.Stamp, error)
	// Settle makes a base durable with its times, so that a loss of power cannot take its stamp back, and answers it.
	Settle(b Base) (disk.Stamp, error)
	// Path is where an operator finds a file. It is never opened.
	Path(file string) string
}
