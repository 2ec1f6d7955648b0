package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"
)

// OpenDir opens an existing directory of the host. What path itself goes through may be links; nothing below it
// is followed out of it.
func OpenDir(path string) (Dir, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find the absolute path of %s: %w", path, err)
	}
	root, err := os.OpenRoot(absolute)
	if err != nil {
		return nil, fmt.Errorf("open directory: %w", err)
	}
	return &hostDir{root: root, path: absolute, failed: map[string]error{}}, nil
}

// hostDir is a Dir over os.Root.
type hostDir struct {
	root *os.Root
	path string

	mu sync.Mutex
	// failed holds the first sync error of a directory; guarded by mu, which is held over the sync itself so that
	// no other caller can be answered nil for a sync whose error the kernel reported here.
	failed map[string]error
}

// Open implements Dir. The name is looked at before the opening, so that no device or pipe is opened, and after
// it, so that what was opened is what the name stands for and not what a link points at.
func (d *hostDir) Open(name string, mode Mode) (File, error) {
	if err := d.checkRegular("open", name, nil); err != nil {
		return nil, err
	}
	flags := os.O_RDONLY
	if mode == ReadWrite {
		flags = os.O_RDWR
	}
	file, err := d.root.OpenFile(filepath.FromSlash(name), flags|openFlags, 0)
	if err != nil {
		return nil, d.fault("open", name, err)
	}
	opened, err := file.Stat()
	if err == nil {
		err = d.checkRegular("open", name, opened)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return NewFile(file), nil
}

// checkRegular refuses a name that is not a regular file with one name; opened, when there is one, must be it.
func (d *hostDir) checkRegular(op, name string, opened fs.FileInfo) error {
	info, err := d.Stat(name)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return d.fault(op, name, fmt.Errorf("%w: it is %s", ErrNotRegular, describe(info.Mode())))
	}
	if links, known := linkCount(info); known && links != 1 {
		return d.fault(op, name, fmt.Errorf("%w: it has %d names", ErrNotRegular, links))
	}
	if opened != nil && !os.SameFile(info, opened) {
		return d.fault(op, name, fmt.Errorf("%w: it was exchanged while it was opened", ErrNotRegular))
	}
	return nil
}

func describe(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link"
	case mode&fs.ModeDevice != 0:
		return "a device"
	default:
		return "neither file nor directory"
	}
}

// Create implements Dir.
func (d *hostDir) Create(name string) (File, error) {
	local, err := d.local("create", name)
	if err != nil {
		return nil, err
	}
	file, err := d.root.OpenFile(local, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, d.fault("create", name, err)
	}
	return NewFile(file), nil
}

// Mkdir implements Dir. An existing directory's parent is synced as well: whoever made it may have ended before
// syncing it.
func (d *hostDir) Mkdir(name string) error {
	local, err := d.local("mkdir", name)
	if err != nil || name == "." {
		return err
	}
	parent := path.Dir(name)
	if err := d.Mkdir(parent); err != nil {
		return err
	}
	if err := d.root.Mkdir(local, 0o700); err != nil {
		info, statErr := d.root.Lstat(local)
		if statErr != nil || !info.IsDir() {
			return d.fault("mkdir", name, err)
		}
	}
	return d.Sync(parent)
}

// Rename implements Dir.
func (d *hostDir) Rename(oldName, newName string) error {
	from, err := d.local("rename", oldName)
	if err != nil {
		return err
	}
	to, err := d.local("rename", newName)
	if err != nil {
		return err
	}
	if err := d.root.Rename(from, to); err != nil {
		return d.fault("rename", oldName, err)
	}
	return nil
}

// Remove implements Dir.
func (d *hostDir) Remove(name string) error {
	local, err := d.local("remove", name)
	if err != nil {
		return err
	}
	if err := d.root.Remove(local); err != nil {
		return d.fault("remove", name, err)
	}
	return nil
}

// Sync implements Dir. Like a file's, its first error is final.
func (d *hostDir) Sync(name string) error {
	local, err := d.local("sync", name)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.failed[name]; err != nil {
		return err
	}
	directory, err := d.root.OpenFile(local, os.O_RDONLY|directoryFlags, 0)
	if err != nil {
		return d.fault("sync", name, err)
	}
	defer directory.Close()
	if err := syncDirectory(directory); err != nil {
		d.failed[name] = d.fault("sync", name, err)
		return d.failed[name]
	}
	return nil
}

// Stat implements Dir. A link is described as a link.
func (d *hostDir) Stat(name string) (fs.FileInfo, error) {
	local, err := d.local("stat", name)
	if err != nil {
		return nil, err
	}
	info, err := d.root.Lstat(local)
	if err != nil {
		return nil, d.fault("stat", name, err)
	}
	return info, nil
}

// List implements Dir.
func (d *hostDir) List(name string) ([]string, error) {
	local, err := d.local("list", name)
	if err != nil {
		return nil, err
	}
	directory, err := d.root.OpenFile(local, os.O_RDONLY|directoryFlags, 0)
	if err != nil {
		return nil, d.fault("list", name, err)
	}
	defer directory.Close()
	entries, err := directory.ReadDir(-1)
	if err != nil {
		return nil, d.fault("list", name, err)
	}
	return sortedNames(entries), nil
}

// Free implements Dir.
func (d *hostDir) Free() (int64, error) {
	directory, err := d.root.Open(".")
	if err != nil {
		return 0, d.fault("statfs", ".", err)
	}
	defer directory.Close()
	free, err := freeBytes(directory)
	if err != nil {
		return 0, d.fault("statfs", ".", err)
	}
	return free, nil
}

// Path implements Dir.
func (d *hostDir) Path(name string) string { return filepath.Join(d.path, filepath.FromSlash(name)) }

// Close implements Dir.
func (d *hostDir) Close() error { return d.root.Close() }

// local is name in the host's spelling; a name that is not clean, relative and inside the tree is refused.
func (d *hostDir) local(op, name string) (string, error) {
	if !fs.ValidPath(name) {
		return "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	local, err := filepath.Localize(name)
	if err != nil {
		return "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return local, nil
}

// fault names the whole path in err, where the root's own errors name what lies below it.
func (d *hostDir) fault(op, name string, err error) error {
	var pathErr *fs.PathError
	var linkErr *os.LinkError
	switch {
	case errors.As(err, &pathErr):
		err = pathErr.Err
	case errors.As(err, &linkErr):
		err = linkErr.Err
	}
	return &fs.PathError{Op: op, Path: d.Path(name), Err: err}
}
