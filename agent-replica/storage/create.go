package storage

import (
	"errors"
	"io/fs"
	"path"

	"vmreplica/agent-replica/chain"
	"vmreplica/internal/disk"
	"vmreplica/internal/disk/format"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// making ends the name under which a base with a container is made, before it takes the base's. It begins as the names
// of layers do, so that no disk's id is that name.
const making = ".00000000.new"

// LayerKind is what the differencing disks over a base of that format are.
func (s *Storage) LayerKind(base replication.Format, asked replication.Differencing) chain.LayerKind {
	layers := format.LayerFormat(base, asked)
	return chain.LayerKind{Format: layers, Extension: format.Extension(layers)}
}

// Supports refuses a disk that the base's format cannot hold.
func (s *Storage) Supports(b chain.Base, sizeBytes int64, sectorSize int) error {
	return format.CheckSupport(b.ImageFormat(), sizeBytes, sectorSize)
}

// CreateBase makes a base that reads as zeros: raw is sparse, every other format one that grows. BASE_EXISTS when
// something lies there, but for what the caller knows to have begun itself: with begun, an empty file and a base
// without content are completed. The name is taken first, by an empty file; what has a container is made beside it and
// put in its place whole.
func (s *Storage) CreateBase(b chain.Base, sizeBytes int64, sectorSize int, begun bool) error {
	directory := path.Dir(b.File)
	if err := s.root.Mkdir(directory); err != nil {
		return s.fault(err, b.File)
	}
	made, err := s.claim(b, sizeBytes, sectorSize, begun)
	if err == nil && !made {
		err = s.makeBase(b, sizeBytes, sectorSize)
	}
	if err != nil {
		return s.fault(err, b.File)
	}
	return s.fault(s.root.Sync(directory), b.File)
}

// claim takes the base's name by an empty file. With begun one that is there already will do, and made says that it is
// the whole base.
func (s *Storage) claim(b chain.Base, sizeBytes int64, sectorSize int, begun bool) (made bool, err error) {
	created, err := s.root.Create(b.File)
	if err == nil {
		return false, created.Close()
	}
	if !errors.Is(err, fs.ErrExist) {
		return false, err
	}
	if !begun {
		return false, s.occupied(b.File)
	}
	if empty, err := s.begunEmpty(b.File); err != nil || empty {
		return false, err
	}
	if err := s.checkBlank(b, sizeBytes, sectorSize); err != nil {
		return false, err
	}
	return true, nil
}

// begunEmpty says whether the file is empty; IMAGE_IN_USE when another program has it.
func (s *Storage) begunEmpty(file string) (empty bool, err error) {
	opened, err := s.root.Open(file, durable.ReadWrite)
	if err != nil {
		return false, err
	}
	size := int64(0)
	if err = s.lock(opened, file); err == nil {
		size, err = opened.Size()
	}
	return size == 0, errors.Join(err, opened.Close())
}

// checkBlank refuses what is not a base of that kind without content.
func (s *Storage) checkBlank(b chain.Base, sizeBytes int64, sectorSize int) error {
	opened, err := s.openBase(b, sectorSize)
	if err != nil && failure.Find(err).Reason == failure.ReasonImageUnreadable {
		return s.occupied(b.File)
	}
	if err != nil {
		return err
	}
	blank := opened.Size() == sizeBytes && opened.LogicalSectorSize() == sectorSize
	for extent, extentErr := range opened.Extents(0, opened.Size()) {
		if !blank || extentErr != nil {
			err = extentErr
			break
		}
		blank = extent.Kind != disk.Data
	}
	if err = errors.Join(err, opened.Close()); err == nil && !blank {
		err = s.occupied(b.File)
	}
	return err
}

// makeBase makes the base in the place of the empty file.
func (s *Storage) makeBase(b chain.Base, sizeBytes int64, sectorSize int) error {
	beside := b.File + making
	if err := s.root.Remove(beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	created, err := s.root.Create(beside)
	if err != nil {
		return err
	}
	wanted := format.New{Path: s.Path(b.File), SizeBytes: sizeBytes, SectorSize: sectorSize}
	base, err := format.Create(created, b.ImageFormat(), wanted)
	if err == nil {
		err = base.Close()
	}
	if err == nil {
		err = s.root.Rename(beside, b.File)
	}
	if err != nil {
		return errors.Join(err, ignoreMissing(s.root.Remove(beside)))
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// CreateLayer makes an empty layer. A file of that name is an error.
func (s *Storage) CreateLayer(l chain.Layer, sizeBytes int64, sectorSize int) (disk.Layer, error) {
	if err := s.root.Mkdir(path.Dir(l.File)); err != nil {
		return nil, s.fault(err, l.File)
	}
	created, err := s.root.Create(l.File)
	if err != nil {
		return nil, s.fault(err, l.File)
	}
	wanted := format.New{Path: s.Path(l.File), SizeBytes: sizeBytes, SectorSize: sectorSize}
	layer, err := format.CreateLayer(created, l.ImageFormat(), wanted)
	if err != nil {
		return nil, s.fault(err, l.File)
	}
	if err := s.root.Sync(path.Dir(l.File)); err != nil {
		return nil, errors.Join(s.fault(err, l.File), layer.Close())
	}
	return layer, nil
}

// OpenLayer opens and locks a layer for writing; BASE_MISSING when it is not there.
func (s *Storage) OpenLayer(l chain.Layer) (disk.Layer, error) {
	opened, err := s.root.Open(l.File, durable.ReadWrite)
	if err != nil {
		return nil, s.fault(err, l.File)
	}
	layer, err := format.OpenLayer(opened, l.ImageFormat(), format.Options{Path: s.Path(l.File), Access: imagelock.Write})
	if err != nil {
		return nil, s.fault(err, l.File)
	}
	return layer, nil
}

func (s *Storage) lock(file durable.File, name string) error {
	if fd, ok := file.Fd(); ok {
		return imagelock.Lock(fd, s.Path(name), imagelock.Write)
	}
	return nil
}
