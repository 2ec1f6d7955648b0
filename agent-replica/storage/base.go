package storage

import (
	"errors"
	"io"
	"io/fs"
	"path"

	"vmreplica/agent-replica/chain"
	"vmreplica/internal/disk"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/disk/raw"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// Vacant answers BASE_EXISTS when something lies where a base of that size is to be made, but for a file without
// content that an interrupted creation left.
func (s *Storage) Vacant(file string, size int64) error {
	info, err := s.root.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return s.fault(err, file)
	}
	if info.Mode().IsRegular() && (info.Size() == 0 || info.Size() == size) {
		blank, err := s.blank(file)
		if blank || err != nil {
			return s.fault(err, file)
		}
	}
	return failure.New(failure.Exists, failure.ReasonBaseExists, "%s exists on the replica", s.Path(file)).
		Try("Adopt it with --use-existing, or move it away.")
}

// blank says whether a file has no data at all.
func (s *Storage) blank(file string) (bool, error) {
	opened, err := s.root.Open(file, durable.ReadOnly)
	if err != nil {
		return false, err
	}
	_, _, err = opened.SeekData(0)
	return errors.Is(err, io.EOF), opened.Close()
}

// CreateBase makes a sparse base that reads as zeros, where Vacant allows it.
func (s *Storage) CreateBase(file string, size int64) error {
	if err := s.Vacant(file, size); err != nil {
		return err
	}
	directory := path.Dir(file)
	if err := s.root.Mkdir(directory); err != nil {
		return s.fault(err, file)
	}
	created, err := s.root.Create(file)
	if errors.Is(err, fs.ErrExist) {
		created, err = s.root.Open(file, durable.ReadWrite)
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
	opened, err := raw.Open(file, options)
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
