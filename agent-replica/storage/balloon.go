package storage

import (
	"errors"
	"io/fs"
	"path"

	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

// Balloon holds the space of a merge in a preallocated file without content. Nothing of it must survive a crash: a
// balloon that is lost only makes the merge wait when the storage is full. One caller at a time.
type Balloon struct {
	storage *Storage
	file    string
}

// Balloon is the one of that file name; it need not exist yet.
func (s *Storage) Balloon(file string) *Balloon { return &Balloon{storage: s, file: file} }

// Grow makes the balloon hold at least to bytes; STORAGE_FULL, with what is lacking, when there is no room. Where the
// filesystem cannot reserve space there is no balloon, and no error.
func (b *Balloon) Grow(to int64) error {
	file, err := b.open()
	if err != nil {
		return b.storage.fault(err, b.file)
	}
	held, err := b.held(file)
	if err == nil && held < to {
		if err = grow(file, held, to); isFull(err) {
			err = b.lacks(to - held)
		}
	}
	return b.storage.fault(errors.Join(err, file.Close()), b.file)
}

// held is how much of the file has space: a crash may have left less than its size.
func (b *Balloon) held(file durable.File) (int64, error) {
	size, err := file.Size()
	if err != nil {
		return 0, err
	}
	allocated, err := b.storage.Allocated(b.file)
	return min(size, allocated), err
}

func (b *Balloon) lacks(bytes int64) error {
	free, err := b.storage.Free()
	if err != nil {
		return err
	}
	return failure.New(failure.Exhausted, failure.ReasonStorageFull,
		"the replica's storage is full: the merge needs %d bytes more than are held for it, and %d are free", bytes, free).
		Try("Free some space in %s; it goes on by itself.", b.storage.Path("."))
}

// grow extends the file first: space behind a file's end is given back by no truncation on some filesystems.
func grow(file durable.File, from, to int64) error {
	size, err := file.Size()
	if err == nil && size < to {
		err = file.Truncate(to)
	}
	if err != nil {
		return err
	}
	err = file.Allocate(from, to-from)
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
