package vhd

import (
	"encoding/binary"
	"fmt"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
)

// Parent is what the header says; the zero Parent before Seal. Name is relative to the file's own directory, with
// slashes, Path absolute as far as it was known, Identity the parent's unique id.
func (l *Layer) Parent() disk.Parent {
	l.flushing.Lock()
	defer l.flushing.Unlock()
	return l.parent
}

// Seal flushes and makes parent, a VHD, the parent: its unique id, its name, and a relative and an absolute locator.
// Sealing again replaces it. The locators are written where no header points to, and the new header to its second
// place, all of it durable before the header itself is written: after a crash it names the parent that was or the
// new one whole, and then everything flushed is there. A header that another program laid out is left alone, class
// Unsupported. parent is not opened.
func (l *Layer) Seal(parent disk.Parent) error {
	if l.mode != durable.ReadWrite {
		return errReadOnly
	}
	encoded, err := encodeParent(parent)
	if err != nil {
		return err
	}
	l.flushing.Lock()
	defer l.flushing.Unlock()
	at, err := l.freePlace()
	if err != nil {
		return err
	}
	sealed := l.header.sealed(parent.Identity, encoded, at)
	if err := l.writePrepared(sealed, encoded, at); err != nil {
		return fmt.Errorf("seal VHD: %w", err)
	}
	if err := l.flush(); err != nil {
		return err
	}
	if err := l.writeSynced(sealed[:], l.headerAt); err != nil {
		return l.fail(fmt.Errorf("seal VHD: %w", err))
	}
	l.header = sealed
	l.parent, err = readParent(l.file, sealed, differenceBAT)
	return err
}

// freePlace is where the locators' data may go: the one of two places that the header does not use.
func (s *sparse) freePlace() (int64, error) {
	const secondAt = firstLocatorAt + locatorBytes
	free := int64(firstLocatorAt)
	ours := s.headerAt == headerAt && s.bat == differenceBAT
	for i := range locators {
		l := s.header.locator(i)
		if !l.inUse() {
			continue
		}
		switch l.offset {
		case firstLocatorAt, firstLocatorAt + relativeBytes:
			free = secondAt
		case secondAt, secondAt + relativeBytes:
		default:
			ours = false
		}
	}
	if !ours {
		return 0, unsupported("the header of this differencing disk was laid out by another program; its parent cannot be changed here")
	}
	return free, nil
}

// sealed is the header with another parent. Its second sector has another sum than before, or is the same: so a
// header of which one sector is old and one new never has the right checksum.
func (h *header) sealed(id disk.Identity, parent *encodedParent, at int64) *header {
	sealed := *h
	copy(sealed[headerParentID:], id[:])
	binary.BigEndian.PutUint32(sealed[headerParentTime:], 0)
	name := sealed[headerParentName : headerParentName+2*maxNameUnits]
	clear(name)
	copy(name, parent.name)
	clear(sealed[headerLocators:headerReserved])
	relative := locator{relativeCode, relativeBytes, int64(len(parent.relative)), at}
	sealed.setLocator(0, relative)
	if len(parent.absolute) > 0 {
		sealed.setLocator(1, locator{absoluteCode, absoluteBytes, int64(len(parent.absolute)), at + relativeBytes})
	}
	if sum(sealed[sectorSize:]) == sum(h[sectorSize:]) {
		relative.space -= sectorSize
		sealed.setLocator(0, relative)
	}
	sealed.sum()
	return &sealed
}

// writePrepared writes everything but the header itself.
func (s *sparse) writePrepared(h *header, parent *encodedParent, at int64) error {
	for _, part := range []snapshot{
		{at, parent.relative}, {at + relativeBytes, parent.absolute}, {s.headerAt + headerSize, h[:]},
	} {
		if _, err := s.file.WriteAt(part.data, part.offset); err != nil {
			return err
		}
	}
	return nil
}
