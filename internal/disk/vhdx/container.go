package vhdx

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"

	"vmreplica/internal/durable"
)

// container is a file as its structures describe it, every length and place in them checked.
type container struct {
	file durable.File
	// physical is the file's size when it was inspected, fileSize what a replay makes of it.
	physical, fileSize int64
	creator            string
	pair               *headerPair
	header             header
	place              int // of header among headerPlaces
	// ring is where the log lies: it stays there, and is read without the lock that the header needs.
	ring span
	// overlay is what is replayed in memory; nil when there is nothing.
	overlay    *overlay
	regionErrs [2]error
	regions    *regions
	items      metadataItems
	metadata   *metadata
	geometry
}

// inspect reads the structures. It writes nothing.
func inspect(file durable.File) (*container, error) {
	size, err := file.Size()
	if err != nil {
		return nil, fmt.Errorf("measure the VHDX file: %w", err)
	}
	c := &container{file: file, physical: size}
	if err := c.readIdentifier(size); err != nil {
		return nil, err
	}
	if c.pair, err = readHeaders(file); err != nil {
		return nil, err
	}
	c.place = c.pair.current
	c.header = *c.pair.headers[c.place]
	if err := c.header.checkLog(size); err != nil {
		return nil, err
	}
	c.ring = c.header.log
	if c.overlay, err = readLog(file, &c.header, size); err != nil {
		return nil, err
	}
	c.fileSize = c.overlay.fileSize(size)
	if err := c.readRegions(); err != nil {
		return nil, err
	}
	return c, c.readMetadata()
}

// readIdentifier refuses what is no VHDX file, or not one yet: the identifier is the last that Create writes.
func (c *container) readIdentifier(size int64) error {
	if size < headerAreaSize {
		return corrupt("it has %d bytes; it was cut, or its creation did not finish", size)
	}
	p := make([]byte, len(signature)+creatorSize)
	if err := readFull(c.file, p, 0); err != nil {
		return err
	}
	if string(p[:len(signature)]) != signature {
		return corrupt("it does not begin with %q: it is no VHDX file, or its creation did not finish", signature)
	}
	c.creator = textOf(p[len(signature):])
	return nil
}

// textOf is UTF-16 up to its first zero.
func textOf(p []byte) string {
	var units []uint16
	for i := 0; i+1 < len(p) && (p[i] != 0 || p[i+1] != 0); i += 2 {
		units = append(units, uint16(p[i])|uint16(p[i+1])<<8)
	}
	return strings.ToValidUTF8(string(utf16.Decode(units)), "?")
}

func (c *container) readRegions() error {
	for i, place := range regionTablePlaces {
		p, err := c.readLogged(span{place, regionTableSize})
		if err != nil {
			return err
		}
		found, err := parseRegions(p)
		switch c.regionErrs[i] = err; {
		case c.regions != nil || errors.Is(err, errTable):
		case err != nil:
			return err
		default:
			c.regions = found
		}
	}
	if c.regions == nil {
		return corrupt("neither region table can be used: the first: %v; the second: %v", c.regionErrs[0], c.regionErrs[1])
	}
	return c.regions.check(c.ring, c.fileSize)
}

func (c *container) readMetadata() error {
	region := c.regions.metadata
	table, err := c.readLogged(span{region.offset, metadataTable})
	if err != nil {
		return err
	}
	if c.items, err = parseItems(table, region.length); err != nil {
		return err
	}
	read := func(it item) ([]byte, error) { return c.readLogged(span{region.offset + it.offset, it.length}) }
	if c.metadata, err = c.items.values(read); err != nil {
		return err
	}
	m := c.metadata
	c.geometry = newGeometry(m.size, m.block, m.logicalSector, m.hasParent)
	if need := c.entries() * entrySize; need > c.regions.bat.length {
		return corrupt("its BAT of %d bytes is too short for a disk of %d bytes: %d are needed", c.regions.bat.length, m.size, need)
	}
	if !m.hasParent {
		return nil
	}
	it, found := c.items.find(itemParentLocator)
	if !found {
		return corrupt("it has a parent but no parent locator")
	}
	p, err := read(it)
	if err != nil {
		return err
	}
	m.locator, err = parseLocator(p)
	return err
}

// readLogged reads what may have been changed through the log. It is at most some MiB, and inside the file.
func (c *container) readLogged(at span) ([]byte, error) {
	from, to := at.offset/pageSize*pageSize, roundUp(at.end(), pageSize)
	p := make([]byte, to-from)
	if err := c.readPart(p, from); err != nil {
		return nil, err
	}
	for i := from; c.overlay != nil && i < to; i += pageSize {
		if err := c.overlay.patch(p[i-from:][:pageSize], i); err != nil {
			return nil, err
		}
	}
	return p[at.offset-from:][:at.length], nil
}

// readPage reads one page as it is after the replay.
func (c *container) readPage(p []byte, off int64) error {
	if err := c.readPart(p, off); err != nil || c.overlay == nil {
		return err
	}
	return c.overlay.patch(p, off)
}

// readPart reads the file; what a replay will add to its end is zeros.
func (c *container) readPart(p []byte, off int64) error {
	if n := max(c.physical-off, 0); c.overlay != nil && n < int64(len(p)) {
		clear(p[n:])
		p = p[:n]
	}
	if len(p) == 0 {
		return nil
	}
	return readFull(c.file, p, off)
}

// updateHeader makes change to the header, in both places one after the other, each synced.
func (c *container) updateHeader(change func(*header)) error {
	updated := c.header
	change(&updated)
	for range 2 {
		updated.sequence++
		place := 1 - c.place
		if _, err := c.file.WriteAt(updated.encode(), headerPlaces[place]); err != nil {
			return err
		}
		if err := c.file.Sync(); err != nil {
			return err
		}
		c.header, c.place = updated, place
	}
	return nil
}

// replay makes durable what the log holds, and ends it.
func (c *container) replay() error {
	if c.overlay == nil {
		return nil
	}
	err := c.overlay.apply(c.physical)
	if err == nil {
		c.overlay = nil
		err = c.updateHeader(func(h *header) { h.logGUID, h.fileWrite = guid{}, newGUID() })
	}
	if err != nil {
		return fmt.Errorf("replay the log of the VHDX file: %w", err)
	}
	return nil
}
