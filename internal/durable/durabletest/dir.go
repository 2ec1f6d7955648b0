package durabletest

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"vmreplica/internal/durable"
)

// dir is a durable.Dir of a Recorder.
type dir struct {
	recorder *Recorder
	base     string
}

func (d *dir) full(op, name string) (string, error) {
	if !fs.ValidPath(name) {
		return "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return path.Join(d.base, name), nil
}

// find looks name up and answers its full name and number; the recorder is locked.
func (d *dir) find(op, name string) (full string, number int, exists bool, err error) {
	full, err = d.full(op, name)
	if err != nil {
		return "", 0, false, err
	}
	number, exists = d.recorder.live.entries[full]
	return full, number, exists, nil
}

func fault(op, name string, err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }

// Open implements durable.Dir.
func (d *dir) Open(name string, mode durable.Mode) (durable.File, error) {
	d.recorder.mu.Lock()
	defer d.recorder.mu.Unlock()
	_, number, exists, err := d.find("open", name)
	switch {
	case err != nil:
		return nil, err
	case !exists:
		return nil, fault("open", name, fs.ErrNotExist)
	case number == directory:
		return nil, fault("open", name, fmt.Errorf("%w: it is a directory", durable.ErrNotRegular))
	}
	return d.recorder.open(number, mode), nil
}

// Create implements durable.Dir.
func (d *dir) Create(name string) (durable.File, error) {
	d.recorder.mu.Lock()
	defer d.recorder.mu.Unlock()
	full, _, exists, err := d.find("create", name)
	switch {
	case err != nil:
		return nil, err
	case exists:
		return nil, fault("create", name, fs.ErrExist)
	}
	if err := d.recorder.checkParent("create", full); err != nil {
		return nil, err
	}
	number := d.recorder.newest + 1
	if err := d.recorder.do(Op{Kind: Create, Name: full, file: number}); err != nil {
		return nil, err
	}
	return d.recorder.open(number, durable.ReadWrite), nil
}

func (r *Recorder) checkParent(op, full string) error {
	if number, exists := r.live.entries[path.Dir(full)]; !exists {
		return fault(op, full, fs.ErrNotExist)
	} else if number != directory {
		return fault(op, full, syscall.ENOTDIR)
	}
	return nil
}

// Mkdir implements durable.Dir.
func (d *dir) Mkdir(name string) error {
	d.recorder.mu.Lock()
	defer d.recorder.mu.Unlock()
	full, err := d.full("mkdir", name)
	if err != nil {
		return err
	}
	return d.recorder.mkdir(full)
}

func (r *Recorder) mkdir(full string) error {
	number, exists := r.live.entries[full]
	switch {
	case exists && number == directory:
		return nil
	case exists:
		return fault("mkdir", full, fs.ErrExist)
	}
	if err := r.mkdir(path.Dir(full)); err != nil {
		return err
	}
	return r.do(Op{Kind: Mkdir, Name: full})
}

// Rename implements durable.Dir. Renaming a directory is not modelled.
func (d *dir) Rename(oldName, newName string) error {
	d.recorder.mu.Lock()
	defer d.recorder.mu.Unlock()
	to, replaced, taken, newErr := d.find("rename", newName)
	from, number, exists, err := d.find("rename", oldName)
	switch {
	case err != nil || newErr != nil:
		return errors.Join(err, newErr)
	case !exists:
		return fault("rename", oldName, fs.ErrNotExist)
	case number == directory:
		return fault("rename", oldName, errors.ErrUnsupported)
	}
	switch {
	case taken && replaced == directory:
		return fault("rename", newName, syscall.EISDIR)
	case from == to:
		return nil
	}
	if err := d.recorder.checkParent("rename", to); err != nil {
		return err
	}
	return d.recorder.do(Op{Kind: Rename, Name: from, To: to, file: number})
}

// Remove implements durable.Dir.
func (d *dir) Remove(name string) error {
	d.recorder.mu.Lock()
	defer d.recorder.mu.Unlock()
	full, number, exists, err := d.find("remove", name)
	switch {
	case err != nil:
		return err
	case !exists:
		return fault("remove", name, fs.ErrNotExist)
	case number == directory && d.recorder.live.hasEntries(full):
		return fault("remove", name, syscall.ENOTEMPTY)
	}
	return d.recorder.do(Op{Kind: Remove, Name: full, file: number})
}

// Sync implements durable.Dir.
func (d *dir) Sync(name string) error {
	d.recorder.mu.Lock()
	defer d.recorder.mu.Unlock()
	full, number, exists, err := d.find("sync", name)
	switch {
	case err != nil:
		return err
	case !exists:
		return fault("sync", name, fs.ErrNotExist)
	case number != directory:
		return fault("sync", name, syscall.ENOTDIR)
	case d.recorder.failedDirs[full] != nil:
		return d.recorder.failedDirs[full]
	}
	if err := d.recorder.do(Op{Kind: SyncDir, Name: full}); err != nil {
		d.recorder.failedDirs[full] = err
		return err
	}
	return nil
}

// Stat implements durable.Dir. A file's modification time moves with each change and means nothing else.
func (d *dir) Stat(name string) (fs.FileInfo, error) {
	d.recorder.mu.Lock()
	defer d.recorder.mu.Unlock()
	full, number, exists, err := d.find("stat", name)
	switch {
	case err != nil:
		return nil, err
	case !exists:
		return nil, fault("stat", name, fs.ErrNotExist)
	case number == directory:
		return info{name: path.Base(full), mode: fs.ModeDir | 0o700}, nil
	}
	file := d.recorder.live.files[number]
	return info{path.Base(full), file.size, 0o600, time.Unix(0, file.modified)}, nil
}

// List implements durable.Dir.
func (d *dir) List(name string) ([]string, error) {
	d.recorder.mu.Lock()
	defer d.recorder.mu.Unlock()
	full, number, exists, err := d.find("list", name)
	switch {
	case err != nil:
		return nil, err
	case !exists:
		return nil, fault("list", name, fs.ErrNotExist)
	case number != directory:
		return nil, fault("list", name, syscall.ENOTDIR)
	}
	var names []string
	for entry := range d.recorder.live.entries {
		if entry != "." && path.Dir(entry) == full {
			names = append(names, path.Base(entry))
		}
	}
	slices.SortFunc(names, strings.Compare)
	return names, nil
}

// Free implements durable.Dir: what the capacity leaves, 1 PiB when there is none.
func (d *dir) Free() (int64, error) {
	d.recorder.mu.Lock()
	defer d.recorder.mu.Unlock()
	if d.recorder.capacity < 0 {
		return 1 << 50, nil
	}
	return max(0, d.recorder.capacity-d.recorder.live.space()), nil
}

// Path implements durable.Dir.
func (d *dir) Path(name string) string { return path.Join("/recorded", d.base, name) }

// Close implements durable.Dir.
func (d *dir) Close() error { return nil }

// info describes a name.
type info struct {
	name     string
	size     int64
	mode     fs.FileMode
	modified time.Time
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) Mode() fs.FileMode  { return i.mode }
func (i info) ModTime() time.Time { return i.modified }
func (i info) IsDir() bool        { return i.mode.IsDir() }
func (i info) Sys() any           { return nil }
