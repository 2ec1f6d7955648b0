package chain

import (
	"vmreplica/internal/disk"
	"vmreplica/internal/replication"
)

// Storage makes, opens and deletes the files that records name. Names are below the storage directory; failures
// carry the path an operator would look for. It alone knows what a format means: here formats are words that are kept
// with a file and handed back with it.
type Storage interface {
	// LayerKind is what the differencing disks over a base of that format are.
	LayerKind(base replication.Format, asked replication.Differencing) LayerKind
	// Supports refuses a disk that the base's format cannot hold, and a format that is none: LIMIT_EXCEEDED,
	// SECTOR_SIZE_MISMATCH, UNSUPPORTED.
	Supports(b Base, sizeBytes int64, sectorSize int) error
	// Vacant answers BASE_EXISTS when anything lies where a base is to be made.
	Vacant(file string) error
	// CreateBase makes a base that reads as zeros and takes no space for them, durably. BASE_EXISTS when something lies
	// there, but for what the caller knows to have begun itself: with begun, a file without content is completed.
	CreateBase(b Base, sizeBytes int64, sectorSize int, begun bool) error
	// Exists answers BASE_MISSING when the file is not there.
	Exists(file string) error
	// OpenBase opens and locks a base for writing. BASE_MISSING when it is not there, IMAGE_IN_USE when another
	// program has it, IMAGE_UNREADABLE when it is not of b's format or does not hold all of its disk,
	// REPLICA_RECORD_MISMATCH when its stamp is not b.Stamp, unless that is zero.
	OpenBase(b Base, sectorSize int) (disk.Disk, error)
	// CreateLayer makes an empty layer, durably. A file of that name is an error.
	CreateLayer(l Layer, sizeBytes int64, sectorSize int) (disk.Layer, error)
	// OpenLayer opens a layer; BASE_MISSING when it is not there.
	OpenLayer(l Layer) (disk.Layer, error)
	// Remove deletes files, durably when it returns; one that is not there is no error.
	Remove(files ...string) error
	// RemoveDirectory deletes a directory; one that is not empty stays and is no error.
	RemoveDirectory(directory string) error
	// Stamp is the present stamp of a base or, by its file, of a layer.
	Stamp(b Base) (disk.Stamp, error)
	// Settle makes a base or a layer durable with its times, so that a loss of power cannot take its stamp back, and answers it.
	Settle(b Base) (disk.Stamp, error)
	// Path is where an operator finds a file. It is never opened.
	Path(file string) string
}
