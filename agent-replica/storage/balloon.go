package storage

import (
	"errors"
	"io/fs"
	"path"

	"vmreplica/internal/durable"
)

// Balloon holds the space of a merge in a preallocated file without content. Nothing of it must survive a crash: a
// balloon that is lost only makes the merge wait when the storage is full. One caller at a time.
type Balloon struct {
	storage *Storage
	file    string
}

// Balloon is the one of that file name; it need not exist yet.
func (s *Storage) Balloon(file string) *Balloon { return &Balloon{storage: s, file: file} }

// Grow makes the balloon hold at least to bytes; STORAGE_FULL when there is no room. Where the filesystem cannot
// reserve space there is no balloon, and no error.
func (b *Balloon) Grow(to int64) error {
	file, err := b.open()
	if err != nil {
		return b.storage.fault(err, b.file)
	}
	size, err := file.Size()
	if err == nil && size < to {
		err = grow(file, size, to)
	}
	return b.storage.fault(errors.Join(err, file.Close()), b.file)
}

// grow extends the file first: space behind a file's end is given back by no truncation on some filesystems.
func grow(file durable.File, from, to int64) error {
	if err := file.Truncate(to); err != nil {
		return err
	}
	err := file.Allocate(from, to-from)
	if err == nil {
		return nil
	}
	if errors.Is(err, errors.ErrUnsupported) {
		err = nil
	}
	return errors.Join(err, file.Truncate(from))
}

// ShrinkTo gives back what is beyond n bytes. A balloon that is not there is no error.
func (b *Balloon) ShrinkTo(n int64) error {
	file, err := b.storage.root.Open(b.file, durable.ReadWrite)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return b.storage.fault(err, b.file)
	}
	size, err := file.Size()
	if err == nil && size > n {
		err = file.Truncate(n)
	}
	return b.storage.fault(errors.Join(err, file.Close()), b.file)
}

// Remove deletes the balloon.
func (b *Balloon) Remove() error { return b.storage.Remove(b.file) }

func (b *Balloon) open() (durable.File, error) {
	file, err := b.storage.root.Open(b.file, durable.ReadWrite)
	if !errors.Is(err, fs.ErrNotExist) {
		return file, err
	}
	if err := b.storage.root.Mkdir(path.Dir(b.file)); err != nil {
		return nil, err
	}
	return b.storage.root.Create(b.file)
}
