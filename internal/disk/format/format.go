// Package format is the one place that knows which disk formats there are: it opens, makes, describes and checks an
// image by the format that was stated for it, so that nobody above has to tell one from another.
//
// Vocabulary. A base holds all of its disk; a differencing disk leaves ranges to its parent. A Part is one file of a
// chain, open for reading: a base or a differencing disk. A layer is a differencing disk of a replica's own making.
//
// Invariants. The format is stated; what a file holds is checked against it and never decides it. Opening takes the
// file over, locks it as virtual machines lock their images, and closes it on an error. What is opened to be read in
// one pass leaves the host's page cache as it was. A parent is never opened here. After a crash a file is what its
// format's package says.
package format

import (
	"errors"
	"fmt"
	"iter"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/disk/pagecache"
	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/disk/raw"
	"vmreplica/internal/disk/vhd"
	"vmreplica/internal/disk/vhdx"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// Options say how an image is opened.
type Options struct {
	// Path is for messages.
	Path string
	// SectorSize is the logical sector that the machine sees of a raw image: 512, which 0 stands for, or 4096. The other
	// formats have their own.
	SectorSize int
	// Access is what the file was opened for.
	Access imagelock.Access
}

func (o Options) mode() durable.Mode {
	if o.Access == imagelock.Write {
		return durable.ReadWrite
	}
	return durable.ReadOnly
}

// Open takes over file, locks it and makes it a base; it is also disk.Identified where its format has identities. An
// error closes the file. Failures: IMAGE_IN_USE with who uses it; IMAGE_UNREADABLE for a file that is not of the stated
// format, is damaged, or is a differencing disk; UNSUPPORTED for a format that is none, or a kind of it that is not
// read or not written.
func Open(file durable.File, f replication.Format, o Options) (disk.Image, error) {
	if f == replication.FormatRaw {
		return openRaw(file, o)
	}
	file = pagecache.Scattered(file)
	if err := admit(file, f, o); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	switch f {
	case replication.FormatVHD:
		image, err := vhd.Open(file, o.mode())
		return imageOf(image, o.located(err))
	case replication.FormatVHDX:
		image, err := vhdx.Open(file, o.mode())
		return imageOf(image, o.closing(file, err))
	default:
		image, err := qcow2.OpenImage(file, o.mode())
		if err == nil {
			err = o.alone(image)
		}
		return stamped(image, file, o.closing(file, err))
	}
}

func openRaw(file durable.File, o Options) (disk.Image, error) {
	return imageOf(raw.Open(pagecache.Once(file), raw.Options{Path: o.Path, SectorSize: o.SectorSize, Access: o.Access}))
}

// alone refuses a qcow2 image that leaves ranges to a backing file.
func (o Options) alone(image *qcow2.Image) error {
	name, _, ok := image.Backing()
	if !ok {
		return nil
	}
	return failure.New(failure.Precondition, failure.ReasonImageUnreadable,
		"it is a differencing disk and holds only what differs from its backing file %q", name).
		Try("Name the backing file as the disk, or commit the differencing disk into it first.")
}

// Describe says what an image of any kind says of itself. It writes and locks nothing and leaves the file open. Path is
// for messages.
func Describe(file durable.File, f replication.Format, path string) (disk.Info, error) {
	o := Options{Path: path}
	if err := recognize(file, f, o); err != nil {
		return disk.Info{}, err
	}
	var info disk.Info
	var err error
	switch f {
	case replication.FormatVHD:
		info, err = vhd.Describe(file)
	case replication.FormatVHDX:
		info, err = vhdx.Describe(file)
	case replication.FormatQCOW2:
		info, err = qcow2.Describe(file)
	default:
		info, err = describeRaw(file)
	}
	return info, o.located(err)
}

func describeRaw(file durable.File) (disk.Info, error) {
	size, err := file.Size()
	if err != nil {
		return disk.Info{}, fmt.Errorf("measure the image: %w", err)
	}
	if err := disk.CheckSize(size, 512); err != nil {
		return disk.Info{}, failure.New(failure.Precondition, failure.ReasonImageUnreadable, "it cannot be used as a disk: %w", err)
	}
	return disk.Info{
		Format: string(replication.FormatRaw), Kind: "fixed", SizeBytes: size, FileBytes: size, LogicalSectorSize: 512,
	}, nil
}

// Check yields what is inconsistent in an image of any kind, ending at the first error, which is one of reading or of
// what is no image of that format. A raw image has nothing to be inconsistent. It writes and locks nothing and leaves
// the file open; memory is bounded.
func Check(file durable.File, f replication.Format, path string) iter.Seq2[disk.Finding, error] {
	return func(yield func(disk.Finding, error) bool) {
		o := Options{Path: path}
		if err := recognize(file, f, o); err != nil {
			yield(disk.Finding{}, err)
			return
		}
		for finding, err := range check(file, f) {
			if !yield(finding, o.located(err)) || err != nil {
				return
			}
		}
	}
}

func check(file durable.File, f replication.Format) iter.Seq2[disk.Finding, error] {
	switch f {
	case replication.FormatVHD:
		return vhd.Check(file)
	case replication.FormatVHDX:
		return vhdx.Check(file)
	case replication.FormatQCOW2:
		return qcow2.Check(file)
	default:
		return func(yield func(disk.Finding, error) bool) {
			if _, err := describeRaw(file); err != nil {
				yield(disk.Finding{}, err)
			}
		}
	}
}

// admit locks the file and makes sure that it is of the stated format.
func admit(file durable.File, f replication.Format, o Options) error {
	if err := replication.CheckFormat(f); err != nil {
		return o.located(err)
	}
	if err := lock(file, o); err != nil {
		return err
	}
	return recognize(file, f, o)
}

func lock(file durable.File, o Options) error {
	if fd, ok := file.Fd(); ok {
		return imagelock.Lock(fd, o.Path, o.Access)
	}
	return nil
}

// closing is located for an opening that left the file open.
func (o Options) closing(file durable.File, err error) error {
	if err == nil {
		return nil
	}
	return errors.Join(o.located(err), file.Close())
}

// located is err as a failure that names the file; nil stays nil.
func (o Options) located(err error) error {
	if err == nil {
		return nil
	}
	var found *failure.Error
	if !errors.As(err, &found) {
		return failure.New(failure.Precondition, failure.ReasonImageUnreadable, "%s cannot be read: %w", o.Path, err)
	}
	named := *found
	named.Message = o.Path + ": " + found.Message
	return &named
}
