package storage

import (
	"errors"
	"io"
	"io/fs"
	"path"

	"vmreplica/agent-replica/chain"
	"vmreplica/internal/disk"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/disk/pagecache"
	"vmreplica/internal/disk/raw"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// Vacant answers BASE_EXISTS when anything lies where a base is to be made.
func (s *Storage) Vacant(file string) error {
	_, err := s.root.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return s.fault(err, file)
	}
	return s.occupied(file)
}

func (s *Storage) occupied(file string) error {
	return failure.New(failure.Exists, failure.ReasonBaseExists, "%s exists on the replica", s.Path(file)).
		Try("Adopt it with --use-existing, or move it away.")
}

// CreateBase makes a sparse base that reads as zeros. BASE_EXISTS when something lies there, but for what the caller
// knows to have begun itself: with begun, a file without content, empty or of that size, is completed.
func (s *Storage) CreateBase(file string, size int64, begun bool) error {
	directory := path.Dir(file)
	if err := s.root.Mkdir(directory); err != nil {
		return s.fault(err, file)
	}
	created, err := s.root.Create(file)
	if errors.Is(err, fs.ErrExist) {
		if !begun {
			return s.occupied(file)
		}
		created, err = s.reopenBegun(file, size)
	}
	if err != nil {
		return s.fault(err, file)
	}
	if err = created.Truncate(size); err == nil {
		err = created.Sync()
	}
	if err = errors.Join(err, created.Close()); err != nil {
		return s.fault(err, file)
	}
	return s.fault(s.root.Sync(directory), file)
}

// reopenBegun opens and locks a file without content, empty or of that size.
func (s *Storage) reopenBegun(file string, size int64) (durable.File, error) {
	opened, err := s.root.Open(file, durable.ReadWrite)
	if err != nil {
		return nil, err
	}
	if err := s.checkBlank(opened, file, size); err != nil {
		return nil, errors.Join(err, opened.Close())
	}
	return opened, nil
}

func (s *Storage) checkBlank(opened durable.File, file string, size int64) error {
	if err := s.lock(opened, file); err != nil {
		return err
	}
	held, err := opened.Size()
	if err != nil {
		return err
	}
	_, _, err = opened.SeekData(0)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return err
	case err == nil || held != 0 && held != size:
		return s.occupied(file)
	}
	return nil
}

// OpenBase opens and locks a base for writing. REPLICA_RECORD_MISMATCH when its stamp is not b.Stamp, unless that is
// zero.
func (s *Storage) OpenBase(b chain.Base, sectorSize int) (disk.Disk, error) {
	opened, err := s.openBase(b, sectorSize)
	if err != nil {
		return nil, err
	}
	if b.Stamp == (disk.Stamp{}) {
		return opened, nil
	}
	now, err := stampOf(opened)
	if err == nil && now != b.Stamp {
		err = failure.New(failure.Precondition, failure.ReasonReplicaRecord,
			"the base was changed while the agent had it closed: %s", b.Stamp.Difference(now)).
			Try("Resynchronize the VM.")
	}
	if err != nil {
		return nil, errors.Join(s.fault(err, b.File), opened.Close())
	}
	return opened, nil
}

func (s *Storage) openBase(b chain.Base, sectorSize int) (disk.Image, error) {
	if b.Device != "" {
		return s.devices.Open(b.Device, replication.FormatRaw, imagelock.Write)
	}
	file, err := s.root.Open(b.File, durable.ReadWrite)
	if err != nil {
		return nil, s.fault(err, b.File)
	}
	options := raw.Options{Path: s.Path(b.File), SectorSize: sectorSize, Access: imagelock.Write}
	opened, err := raw.Open(pagecache.Once(file), options)
	if err != nil {
		return nil, s.fault(err, b.File)
	}
	return opened, nil
}

// stampOf describes an open base; where the platform has no stamps only its size is known.
func stampOf(opened disk.Image) (disk.Stamp, error) {
	stamp, err := opened.Stamp()
	if errors.Is(err, errors.ErrUnsupported) {
		return disk.Stamp{SizeBytes: opened.Size()}, nil
	}
	return stamp, err
}

// Stamp is a base's present stamp. It opens the base for reading and locks nothing.
func (s *Storage) Stamp(b chain.Base) (disk.Stamp, error) {
	if b.Device != "" {
		return s.devices.Stamp(b.Device)
	}
	file, err := s.root.Open(b.File, durable.ReadOnly)
	if err != nil {
		return disk.Stamp{}, s.fault(err, b.File)
	}
	stamp, err := stampFile(file)
	return stamp, s.fault(errors.Join(err, file.Close()), b.File)
}

// Settle makes a base durable with its times, so that a loss of power cannot take its stamp back, and answers it. What
// was written through another opening is flushed there before, where a failed sync is known. A device keeps no times.
func (s *Storage) Settle(b chain.Base) (disk.Stamp, error) {
	if b.Device != "" {
		return s.devices.Stamp(b.Device)
	}
	file, err := s.root.Open(b.File, durable.ReadOnly)
	if err != nil {
		return disk.Stamp{}, s.fault(err, b.File)
	}
	var stamp disk.Stamp
	if err = durable.SyncTimes(file); err == nil {
		stamp, err = stampFile(file)
	}
	return stamp, s.fault(errors.Join(err, file.Close()), b.File)
}

func stampFile(file durable.File) (disk.Stamp, error) {
	if fd, ok := file.Fd(); ok {
		stamp, err := disk.StampOf(fd)
		if !errors.Is(err, errors.ErrUnsupported) {
			return stamp, err
		}
	}
	size, err := file.Size()
	return disk.Stamp{SizeBytes: size}, err
}
