package images

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/device"
	"vmreplica/internal/disk/format"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/disk/stack"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// maxDepth bounds the files of a chain.
const maxDepth = 64

// Chain is an image and the files that it stands on, open for reading.
type Chain struct {
	*stack.Stack
	// links are the files, the image's own first.
	links []link
}

// link is one file of a chain, or a device below it.
type link struct {
	// path is where it lies, without links.
	path string
	part
}

// part is what a chain needs of an open file or device.
type part interface {
	disk.Reader
	disk.Stamper
	Close() error
}

// OpenChain opens and locks the image at path, and the files that it stands on, to read them. backing are those files
// as Backing listed them; a chain that is another by now is refused, IMAGE_CHANGED. Failures of each file as Open's,
// and IMAGE_UNREADABLE for a parent that is not the one that its child names.
func (i *Images) OpenChain(path string, f replication.Format, backing []string) (*Chain, error) {
	c, err := i.openChain(path, f, func(depth int, child, parent string) error {
		if depth < len(backing) && backing[depth] == parent {
			return nil
		}
		return changed(child, "it stands on %s now", parent)
	})
	if err != nil {
		return nil, err
	}
	if known := len(c.links) - 1; known < len(backing) {
		return nil, errors.Join(changed(c.links[known].path, "it stood on %s and stands on nothing now", backing[known]), c.Close())
	}
	return c, nil
}

func changed(path, format string, args ...any) error {
	return failure.New(failure.Precondition, failure.ReasonImageChanged,
		"%s does not stand on what it stood on when it was enabled: "+format, append([]any{path}, args...)...).
		Try("Put the chain back, or remove the VM and enable it again with --use-existing.")
}

// Backing are the files that the image at path stands on, the nearest first, as the headers name them now: absolute,
// without links, each where the agent may open it. None for an image that stands alone. Failures as OpenChain's.
func (i *Images) Backing(path string, f replication.Format) ([]string, error) {
	c, err := i.openChain(path, f, func(int, string, string) error { return nil })
	if err != nil {
		return nil, err
	}
	var backing []string
	for _, l := range c.links[1:] {
		backing = append(backing, l.path)
	}
	return backing, c.Close()
}

// openChain opens path and every parent that permit lets it, which is asked with the parent's depth from 0.
func (i *Images) openChain(
	path string, f replication.Format, permit func(depth int, child, parent string) error,
) (*Chain, error) {
	c := &Chain{}
	for next := (parent{path: path, format: f}); next.path != ""; {
		found, err := i.openNext(c, next, permit)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		next = found
	}
	layers := make([]disk.Reader, 0, len(c.links))
	for _, l := range c.links {
		layers = append(layers, l.part)
	}
	slices.Reverse(layers)
	c.Stack = stack.New(layers[0], layers[1:]...)
	return c, nil
}

// parent is a file to be opened: where its child's header says that it lies, its format, and the child.
type parent struct {
	path   string
	format replication.Format
	child  *format.Part
	// childPath is as the child was named, for messages and for names relative to it.
	childPath string
}

// openNext opens one file of the chain, adds it and answers its parent, whose path is empty when there is none.
func (i *Images) openNext(c *Chain, p parent, permit func(int, string, string) error) (parent, error) {
	where, err := i.resolve(p.path)
	if err != nil {
		return parent{}, p.failed(err)
	}
	real := where.path()
	if p.child != nil {
		if err := c.admit(p, real, permit); err != nil {
			return parent{}, err
		}
	}
	opened, child, err := i.openPart(where, p)
	if err != nil {
		return parent{}, p.failed(err)
	}
	c.links = append(c.links, link{path: real, part: opened})
	if child == nil {
		return parent{}, nil
	}
	if p.child != nil {
		if err := p.child.CheckParent(child); err != nil {
			return parent{}, failure.New(failure.Precondition, failure.ReasonImageUnreadable,
				"%s cannot be read through %s: %w", p.childPath, p.path, err).
				Try("Put the parent back that the differencing disk was made for.")
		}
	}
	return parentOf(child, p.path)
}

// admit refuses a parent that is in the chain already, is too deep, or is not permitted.
func (c *Chain) admit(p parent, real string, permit func(int, string, string) error) error {
	if slices.ContainsFunc(c.links, func(l link) bool { return l.path == real }) {
		return unreadable(p.childPath, "it stands on %s, which stands on it", real)
	}
	if len(c.links) >= maxDepth {
		return unreadable(p.childPath, "it is one of more than %d files that stand on each other", maxDepth)
	}
	return permit(len(c.links)-1, p.childPath, real)
}

// openPart opens a file, or a device, which is raw. The Part is nil where nothing can lie below.
func (i *Images) openPart(where place, p parent) (part, *format.Part, error) {
	if where.tree == nil {
		if err := checkDevice(p.path, p.format); err != nil {
			return nil, nil, err
		}
		opened, err := device.Open(where.name, imagelock.Read)
		if err != nil {
			return nil, nil, err
		}
		return opened, nil, nil
	}
	file, err := where.tree.Open(where.name, durable.ReadOnly)
	if err != nil {
		return nil, nil, cannotOpen(p.path, err)
	}
	opened, err := format.OpenPart(file, p.format, format.Options{Path: p.path})
	if err != nil {
		return nil, nil, err
	}
	return opened, opened, nil
}

// failed is err with the child named, when it concerns a parent.
func (p parent) failed(err error) error {
	if p.child == nil {
		return err
	}
	named := *failure.Find(err)
	named.Message = p.childPath + " stands on it: " + named.Message
	return &named
}

// parentOf is where a child's header says that its parent lies; the zero parent for a base.
func parentOf(child *format.Part, childPath string) (parent, error) {
	header, is := child.Parent()
	if !is {
		return parent{}, nil
	}
	p := parent{child: child, childPath: childPath, format: parentFormats[header.Format]}
	name := header.Name
	if name == "" {
		name = header.Path
	}
	switch before, _, protocol := strings.Cut(name, ":"); {
	case name == "":
		return parent{}, unreadable(childPath, "its header names no parent")
	case header.Format == "":
		return parent{}, failure.New(failure.Precondition, failure.ReasonImageUnreadable,
			"%s names its backing file %q without a format", childPath, name).
			Try("Formats are never guessed. Write it down: qemu-img rebase -u -F FORMAT -b %q %s", name, childPath)
	case p.format == "":
		return parent{}, unreadable(childPath, "its backing file %q has the format %q, which is not read", name, header.Format)
	case protocol && !strings.Contains(before, "/"):
		return parent{}, unreadable(childPath, "its backing file %q is not the name of a file", name)
	}
	p.path = filepath.FromSlash(name)
	if !filepath.IsAbs(p.path) {
		p.path = filepath.Join(filepath.Dir(childPath), p.path)
	}
	return p, nil
}

// parentFormats are the formats that headers name parents by: ours, and QEMU's name for a VHD.
var parentFormats = map[string]replication.Format{
	"raw": replication.FormatRaw, "qcow2": replication.FormatQCOW2, "vhdx": replication.FormatVHDX,
	"vhd": replication.FormatVHD, "vpc": replication.FormatVHD,
}

func unreadable(path, format string, args ...any) error {
	return failure.New(failure.Precondition, failure.ReasonImageUnreadable, "%s cannot be read: "+format,
		append([]any{path}, args...)...)
}

// Stamp describes the image and everything that it stands on.
func (c *Chain) Stamp() (disk.Stamp, error) {
	var stamps []disk.Stamp
	for _, l := range c.links {
		stamp, err := l.Stamp()
		if err != nil {
			return disk.Stamp{}, err
		}
		stamps = append(stamps, stamp)
	}
	return stamps[0].On(stamps[1:]...), nil
}

// Close closes every file.
func (c *Chain) Close() error {
	var err error
	for _, l := range c.links {
		err = errors.Join(err, l.part.Close())
	}
	return err
}
