package format

import (
	"errors"
	"fmt"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/disk/pagecache"
	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/disk/vhd"
	"vmreplica/internal/disk/vhdx"
	"vmreplica/internal/durable"
	"vmreplica/internal/replication"
)

// Part is one file of a chain, open for reading. Of a differencing disk the ranges that it leaves to its parent are
// Absent.
type Part struct {
	reader
	file   durable.File
	parent *disk.Parent
	// identity is None, and accepts nil, where the format has no identities.
	identity disk.Identity
	accepts  func(disk.Identity) bool
	stamp    func() (disk.Stamp, error)
}

// reader is what a Part reads through.
type reader interface {
	disk.Reader
	Close() error
	AllocatedBytes() (int64, bool)
}

// OpenPart takes over file, locks it against writers and makes it readable, whatever its kind. An error closes the file.
// Failures as Open's.
func OpenPart(file durable.File, f replication.Format, o Options) (*Part, error) {
	o.Access = imagelock.Read
	if f == replication.FormatRaw {
		image, err := openRaw(file, o)
		if err != nil {
			return nil, err
		}
		return &Part{reader: image, file: file, stamp: image.Stamp}, nil
	}
	file = pagecache.Scattered(file)
	if err := admit(file, f, o); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return openContained(file, f, o)
}

// openContained opens a file that is locked and has the format's signature.
func openContained(file durable.File, f replication.Format, o Options) (*Part, error) {
	info, err := Describe(file, f, o.Path)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	p := &Part{file: file, parent: info.Parent, identity: info.Identity}
	p.stamp = func() (disk.Stamp, error) { return stampOf(file) }
	switch {
	case f == replication.FormatVHD && p.parent != nil:
		var layer *vhd.Layer
		if layer, err = vhd.OpenDifferencing(file, durable.ReadOnly); err == nil {
			p.reader, p.accepts = layer, p.named
		}
		err = o.located(err)
	case f == replication.FormatVHD:
		p.reader, err = vhd.Open(file, durable.ReadOnly)
		err = o.located(err)
	case f == replication.FormatVHDX && p.parent != nil:
		var layer *vhdx.Layer
		if layer, err = vhdx.OpenDifferencing(file, durable.ReadOnly); err == nil {
			p.reader, p.accepts = layer, layer.Accepts
		}
		err = o.closing(file, err)
	case f == replication.FormatVHDX:
		p.reader, err = vhdx.Open(file, durable.ReadOnly)
		err = o.closing(file, err)
	default:
		p.reader, err = qcow2.OpenImage(file, durable.ReadOnly)
		err = o.closing(file, err)
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// named says whether id is the one that the header names.
func (p *Part) named(id disk.Identity) bool { return id == p.parent.Identity }

// Parent is what a differencing disk says of its parent; false for a base. Its format is empty where the header names
// none.
func (p *Part) Parent() (disk.Parent, bool) {
	if p.parent == nil {
		return disk.Parent{}, false
	}
	return *p.parent, true
}

// CheckParent refuses a parent whose identity is not the one that the header names: it is another disk, or was changed
// since. Formats without identities tell nothing.
func (p *Part) CheckParent(parent *Part) error {
	if p.accepts == nil || p.accepts(parent.identity) {
		return nil
	}
	return fmt.Errorf("its parent has the identity %s and it was made for %s", parent.identity, p.parent.Identity)
}

// Stamp describes the file.
func (p *Part) Stamp() (disk.Stamp, error) { return p.stamp() }
