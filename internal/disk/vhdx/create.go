package vhdx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf16"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

// Options say what is created. Sizes are bytes.
type Options struct {
	// SizeBytes is the disk's, a multiple of the logical sector, at most 64 TiB.
	SizeBytes int64
	// LogicalSectorSize is 512, which 0 stands for, or 4096.
	LogicalSectorSize int
	// BlockBytes is the payload block's size, a power of two from 1 to 256 MiB; 0 is what Windows takes: 32 MiB of a
	// dynamic file, 2 MiB of a fixed or a differencing one.
	BlockBytes int64
	// Fixed places every block at once. The host's file is sparse all the same.
	Fixed bool
}

// The layout of a new file is that of Windows: the log of 1 MiB, the metadata, the BAT, then blocks.
const (
	newLogAt      = 1 * mib
	newMetadataAt = 2 * mib
	newBATAt      = 3 * mib

	creator          = "vmreplica"
	defaultDynamic   = 32 * mib
	defaultOther     = 2 * mib
	newPhysicalBytes = 4096
)

// Create makes file, which must be empty, a base that reads as zeros. It is durable when Create returns and the
// caller has synced the directory. A crash before that leaves a file that Open refuses, or the whole base.
func Create(file durable.File, o Options) (*Image, error) {
	c, err := o.container(file, false)
	if err != nil {
		return nil, err
	}
	i := &Image{}
	return i, i.create(c)
}

// CreateDifferencing is Create for a differencing file in which everything is absent. It names no parent until Seal:
// other programs refuse it until then.
func CreateDifferencing(file durable.File, o Options) (*Layer, error) {
	if o.Fixed {
		return nil, invalid("create a differencing VHDX file: it cannot be fixed")
	}
	c, err := o.container(file, true)
	if err != nil {
		return nil, err
	}
	l := &Layer{}
	return l, l.create(c)
}

// container is the new file's structures.
func (o Options) container(file durable.File, layer bool) (*container, error) {
	if o.LogicalSectorSize == 0 {
		o.LogicalSectorSize = 512
	}
	if o.BlockBytes == 0 {
		o.BlockBytes = defaultOther
		if !o.Fixed && !layer {
			o.BlockBytes = defaultDynamic
		}
	}
	err := disk.CheckSize(o.SizeBytes, o.LogicalSectorSize)
	if err == nil {
		err = checkBlockSize(o.BlockBytes)
	}
	if err != nil {
		return nil, invalid("create a VHDX file: %w", err)
	}
	present, err := file.Size()
	if err != nil {
		return nil, fmt.Errorf("create a VHDX file: %w", err)
	}
	if present != 0 {
		return nil, failure.New(failure.Exists, failure.ReasonAlreadyExists,
			"create a VHDX file: the file already holds %d bytes", present)
	}
	return o.layout(file, layer), nil
}

func (o Options) layout(file durable.File, layer bool) *container {
	c := &container{file: file, creator: creator, place: 1, ring: span{newLogAt, newMetadataAt - newLogAt}}
	c.geometry = newGeometry(o.SizeBytes, o.BlockBytes, int64(o.LogicalSectorSize), layer)
	c.metadata = &metadata{
		block: o.BlockBytes, fixed: o.Fixed, hasParent: layer, size: o.SizeBytes, diskID: newGUID(),
		logicalSector: c.sector, physicalSector: newPhysicalBytes,
	}
	if layer {
		c.metadata.locator = &locator{}
	}
	c.items = c.metadata.newItems()
	c.regions = &regions{
		metadata: span{newMetadataAt, newBATAt - newMetadataAt},
		bat:      span{newBATAt, roundUp(c.entries()*entrySize, mib)},
	}
	c.header = header{sequence: 2, fileWrite: newGUID(), dataWrite: newGUID(), log: c.ring}
	c.fileSize = c.regions.bat.end()
	if o.Fixed {
		c.fileSize += c.blocks() * c.block
	}
	return c
}

// create writes the structures and starts the disk.
func (v *virtualDisk) create(c *container) error {
	if err := c.format(); err != nil {
		return fmt.Errorf("create a VHDX file: %w", err)
	}
	v.touched = true
	v.begun.Store(true)
	return v.start(c, durable.ReadWrite)
}

// format writes all but the identifier, syncs, and then writes what makes it a VHDX file.
func (c *container) format() error {
	if err := c.file.Truncate(c.fileSize); err != nil {
		return err
	}
	// The space of what every Flush writes is taken at once, where the filesystem can.
	err := c.file.Allocate(0, c.regions.bat.offset)
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	first := c.header
	first.sequence--
	pieces := []struct {
		at    int64
		bytes []byte
	}{
		{headerPlaces[0], first.encode()},
		{headerPlaces[1], c.header.encode()},
		{regionTablePlaces[0], c.regions.encode()},
		{regionTablePlaces[1], c.regions.encode()},
		{c.regions.metadata.offset, c.metadata.encodeItems()},
	}
	for _, piece := range pieces {
		if _, err := c.file.WriteAt(piece.bytes, piece.at); err != nil {
			return err
		}
	}
	if c.metadata.fixed {
		if err := c.writeFixedBAT(); err != nil {
			return err
		}
	}
	if err := c.file.Sync(); err != nil {
		return err
	}
	if _, err := c.file.WriteAt(identifier(), 0); err != nil {
		return err
	}
	return c.file.Sync()
}

// identifier is the file's first sectors: the signature and who made it.
func identifier() []byte {
	p := []byte(signature)
	for _, unit := range utf16.Encode([]rune(creator)) {
		p = binary.LittleEndian.AppendUint16(p, unit)
	}
	return append(p, make([]byte, len(signature)+creatorSize-len(p))...)
}

// writeFixedBAT places every block, one behind the other, a MiB of entries at a time.
func (c *container) writeFixedBAT() error {
	part := make([]byte, 0, mib)
	at := c.regions.bat.offset
	flush := func() error {
		_, err := c.file.WriteAt(part, at)
		at += int64(len(part))
		part = part[:0]
		return err
	}
	for block := range c.blocks() {
		if block > 0 && block%c.ratio == 0 {
			part = binary.LittleEndian.AppendUint64(part, 0) // the chunk's sector bitmap block
		}
		place := c.regions.bat.end() + block*c.block
		part = binary.LittleEndian.AppendUint64(part, uint64(entryOf(stateFullyPresent, place)))
		if len(part) > mib-2*entrySize {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}
