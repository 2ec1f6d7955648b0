// Package images opens disk images where an agent's start-up allows it and nowhere else.
//
// Vocabulary. An image directory is a tree whose files may be opened. A device pattern is a path with wildcards,
// as a shell has them, of block devices that may be opened. A path is what an operator wrote: absolute. A chain is a
// differencing disk and the files that it stands on.
//
// Invariants. A path's links are resolved first, and what it comes to must lie in an image directory, or be a
// device that a pattern names. The opening itself follows no link that leaves the directory, so that a link put
// there meanwhile opens nothing else. The format is stated by the operator, that of a parent by its child's header;
// none is guessed from content. A parent is followed only to a place where an image may be opened, and only to the one
// that was recorded when the disk was enabled. Nothing here writes, so a crash leaves nothing behind.
package images

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/device"
	"vmreplica/internal/disk/format"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// Images is what may be opened. Its methods may be called concurrently, but for Close.
type Images struct {
	directories []directory
	patterns    []string
}

// directory is one image directory: as it was stated, with its links resolved, and open.
type directory struct {
	stated, real string
	tree         durable.Dir
}

// New opens the image directories and checks the device patterns, which are absolute.
func New(directories, patterns []string) (*Images, error) {
	i := &Images{patterns: patterns}
	for _, pattern := range patterns {
		if _, err := filepath.Match(pattern, "/"); err != nil || !filepath.IsAbs(pattern) {
			return nil, failure.New(failure.Invalid, failure.ReasonInvalidArgument,
				"the device pattern %q is not an absolute path with wildcards", pattern).Try("Write it like /dev/vg0/vm-*.")
		}
	}
	for _, stated := range directories {
		if err := i.add(stated); err != nil {
			return nil, errors.Join(err, i.Close())
		}
	}
	return i, nil
}

func (i *Images) add(stated string) error {
	absolute, err := filepath.Abs(stated)
	if err != nil {
		return cannotUse(stated, err)
	}
	real, err := filepath.EvalSymlinks(absolute)
	if err != nil {
		return cannotUse(stated, err)
	}
	tree, err := durable.OpenDir(real)
	if err != nil {
		return cannotUse(stated, err)
	}
	i.directories = append(i.directories, directory{stated: absolute, real: real, tree: tree})
	return nil
}

func cannotUse(stated string, err error) error {
	return failure.New(failure.Precondition, failure.ReasonImageMissing, "the image directory %s cannot be used: %w", stated, err).
		Try("Make the directory, or leave it out of the agent's options.")
}

// Open opens and locks the image at path, which stands alone. Failures: PATH_OUTSIDE with what is allowed,
// IMAGE_MISSING, IMAGE_UNREADABLE, IMAGE_IN_USE with the program named, UNSUPPORTED for what is no format, and
// format.Open's.
func (i *Images) Open(path string, f replication.Format, access imagelock.Access) (disk.Image, error) {
	place, err := i.resolve(path)
	if err != nil {
		return nil, err
	}
	if place.tree == nil {
		if err := checkDevice(path, f); err != nil {
			return nil, err
		}
		return opened(device.Open(place.name, access))
	}
	mode := durable.ReadOnly
	if access == imagelock.Write {
		mode = durable.ReadWrite
	}
	file, err := place.tree.Open(place.name, mode)
	if err != nil {
		return nil, cannotOpen(path, err)
	}
	return format.Open(file, f, format.Options{Path: path, Access: access})
}

// checkDevice refuses another format than raw.
func checkDevice(path string, f replication.Format) error {
	if f == replication.FormatRaw {
		return nil
	}
	return failure.New(failure.Invalid, failure.ReasonUnsupported, "the format %.40q of the device %s is not read", string(f), path).
		Try("State raw: the disk is the device's bytes.")
}

// opened keeps a nil disk from becoming an image that is not nil.
func opened[D disk.Image](d D, err error) (disk.Image, error) {
	if err != nil {
		return nil, err
	}
	return d, nil
}

// Stamp describes the image at path, and the files that it stands on, without locking them: they may be in use. backing
// are those files as Backing listed them. Failures as Open's.
func (i *Images) Stamp(path string, backing ...string) (disk.Stamp, error) {
	stamp, err := i.stampOne(path)
	if err != nil {
		return disk.Stamp{}, err
	}
	var below []disk.Stamp
	for _, parent := range backing {
		next, err := i.stampOne(parent)
		if err != nil {
			return disk.Stamp{}, err
		}
		below = append(below, next)
	}
	return stamp.On(below...), nil
}

func (i *Images) stampOne(path string) (disk.Stamp, error) {
	place, err := i.resolve(path)
	if err != nil {
		return disk.Stamp{}, err
	}
	if place.tree == nil {
		return device.Stamp(place.name)
	}
	file, err := place.tree.Open(place.name, durable.ReadOnly)
	if err != nil {
		return disk.Stamp{}, cannotOpen(path, err)
	}
	defer file.Close()
	fd, ok := file.Fd()
	if !ok {
		return disk.Stamp{}, fmt.Errorf("describe %s: %w", path, errors.ErrUnsupported)
	}
	return disk.StampOf(fd)
}

// Close lets the directories go. Images opened from them stay open.
func (i *Images) Close() error {
	var err error
	for _, d := range i.directories {
		err = errors.Join(err, d.tree.Close())
	}
	return err
}

// allowed lists what may be opened, for a message.
func (i *Images) allowed() string {
	var places []string
	for _, d := range i.directories {
		places = append(places, d.stated)
	}
	places = append(places, i.patterns...)
	if len(places) == 0 {
		return "nothing"
	}
	return strings.Join(places, ", ")
}

func cannotOpen(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return missing(path)
	case errors.Is(err, fs.ErrPermission):
		return failure.New(failure.Precondition, failure.ReasonImageUnreadable, "%s may not be opened: %w", path, reason(err)).
			Try("Let the agent's user read and, on a replica, write it.")
	default:
		return failure.New(failure.Precondition, failure.ReasonImageUnreadable, "%s cannot be opened: %w", path, reason(err))
	}
}

// reason is err without the path, which the message has already.
func reason(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

func missing(path string) error {
	return failure.New(failure.NotFound, failure.ReasonImageMissing, "there is no image at %s", path).
		Try("Correct the path, or put the image back.")
}
