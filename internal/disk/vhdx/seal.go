package vhdx

import (
	"encoding/binary"
	"fmt"
	"slices"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

// Seal flushes, makes parent the file's parent, and ends the log. The locator and its place in the metadata table
// change by one entry of the log: after a crash the file names the parent that was, or the new one whole. The
// identity of the file stays. parent is not opened.
func (l *Layer) Seal(parent disk.Parent) error {
	if l.mode != durable.ReadWrite {
		return errReadOnly
	}
	named, err := locatorFor(parent)
	if err != nil {
		return err
	}
	if err := l.seal(named); err != nil {
		return err
	}
	return l.settle()
}

func (l *Layer) seal(named *locator) error {
	l.flushing.Lock()
	defer l.flushing.Unlock()
	if err := l.flush(); err != nil {
		return err
	}
	items, images, err := l.locatorPages(named.encode())
	if err != nil {
		return err
	}
	size := l.sizeNow()
	if err = l.sync(true, size); err == nil {
		err = l.log.commit(images, size)
	}
	if err != nil {
		return l.fail(fmt.Errorf("seal the VHDX file: %w", err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.items, l.metadata.locator = items, named
	return nil
}

func (v *virtualDisk) sizeNow() int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.end
}

// locatorPages is the pages that make raw the parent locator: behind all other items, and the page of the table that
// has its entry.
func (l *Layer) locatorPages(raw []byte) (metadataItems, []pageImage, error) {
	items := slices.Clone(l.items)
	index := slices.IndexFunc(items, func(it item) bool { return it.id == itemParentLocator })
	at := int64(metadataTable)
	for i, it := range items {
		if i != index {
			at = max(at, roundUp(it.offset+it.length, pageSize))
		}
	}
	padded := make([]byte, roundUp(int64(len(raw)), pageSize))
	copy(padded, raw)
	region := l.regions.metadata
	images := len(padded)/pageSize + 1
	if at > region.length-int64(len(padded)) || images > l.log.maxPages() {
		return nil, nil, failure.New(failure.Unsupported, failure.ReasonUnsupported,
			"the metadata region of the VHDX file has no room for a parent locator of %d bytes", len(raw))
	}
	items[index].offset, items[index].length = at, int64(len(raw))
	entryAt := int64(32 + 32*index)
	table, err := l.readLogged(span{region.offset + entryAt/pageSize*pageSize, pageSize})
	if err != nil {
		return nil, nil, err
	}
	binary.LittleEndian.PutUint32(table[entryAt%pageSize+16:], uint32(at))
	binary.LittleEndian.PutUint32(table[entryAt%pageSize+20:], uint32(len(raw)))
	pages := []pageImage{{region.offset + entryAt/pageSize*pageSize, table}}
	for i := int64(0); i < int64(len(padded)); i += pageSize {
		pages = append(pages, pageImage{region.offset + at + i, padded[i:][:pageSize]})
	}
	return items, pages, nil
}

// Parent is what the file says of its parent, nothing of which was opened; the zero Parent before Seal. Name is the
// recorded path relative to the file's directory, with slashes; Path the absolute one.
func (l *Layer) Parent() disk.Parent {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.metadata.locator.parent()
}

// Accepts says whether id may be the parent's identity: it is recorded as parent_linkage or as parent_linkage2.
func (l *Layer) Accepts(id disk.Identity) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.metadata.locator.linkages(), id)
}

func notABase(parent disk.Parent) error {
	if parent == (disk.Parent{}) {
		return failure.New(failure.Precondition, failure.ReasonImageUnreadable,
			"the VHDX file is a differencing disk that was not finished: it names no parent")
	}
	return failure.New(failure.Precondition, failure.ReasonImageUnreadable,
		"the VHDX file is a differencing disk: the rest of its content is in its parent %q (%q)", parent.Name, parent.Path)
}

func notALayer() error {
	return failure.New(failure.Precondition, failure.ReasonImageUnreadable,
		"the VHDX file is no differencing disk: it has no parent")
}
