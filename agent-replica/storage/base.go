package storage

import (
	"errors"
	"io/fs"

	"vmreplica/agent-replica/chain"
	"vmreplica/internal/disk"
	"vmreplica/internal/disk/format"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
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

// OpenBase opens and locks a base for writing. IMAGE_UNREADABLE when it is not of the stated format, or a differencing
// disk; REPLICA_RECORD_MISMATCH when its stamp is not b.Stamp, unless that is zero.
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
		return s.devices.Open(b.Device, b.ImageFormat(), imagelock.Write)
	}
	file, err := s.root.Open(b.File, durable.ReadWrite)
	if err != nil {
		return nil, s.fault(err, b.File)
	}
	options := format.Options{Path: s.Path(b.File), SectorSize: sectorSize, Access: imagelock.Write}
	opened, err := format.Open(file, b.ImageFormat(), options)
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
