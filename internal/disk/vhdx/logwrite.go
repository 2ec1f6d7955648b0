package vhdx

import (
	"cmp"
	"slices"

	"vmreplica/internal/durable"
)

// logWriter appends entries to the ring. An entry takes a third of it at most. What must not be overwritten is what
// the last durable entry names: its tail up to its own end. That is never more than two entries, because the sync
// that makes an entry durable makes the pages of the one before it durable in their places. So there is always room
// for one entry more and a free sector, and whatever becomes of a new entry, the sequence before it stays whole.
type logWriter struct {
	file durable.File
	ring span
	// guid is None while the header names no log.
	guid     guid
	sequence uint64
	// head is where the next entry goes in the ring.
	head int64
	// oldest is the place of the one entry whose pages may not be durable in their places; -1 when all are.
	oldest int64
}

// maxPages is how many pages one entry may have.
func (w *logWriter) maxPages() int {
	return int(min(maxOurDescriptors, (w.ring.length/logSector-1)/3-1))
}

// begin writes an empty entry, so that a header that names the log never names one without an entry.
func (w *logWriter) begin(size int64) error {
	w.guid, w.sequence, w.head, w.oldest = newGUID(), 0, 0, -1
	return w.append(nil, size)
}

// append writes an entry; it is durable with the next sync. size is the file's, durable by now.
func (w *logWriter) append(images []pageImage, size int64) error {
	w.sequence++
	p := make([]byte, (1+len(images))*logSector)
	for i, image := range images {
		descriptor := p[entryHeaderSize+i*descriptorSize:][:descriptorSize]
		encodePage(descriptor, p[(1+i)*logSector:][:logSector], w.sequence, image.offset, image.bytes)
	}
	h := entryHeader{
		length: int64(len(p)), tail: w.head, sequence: w.sequence, descriptors: int64(len(images)), guid: w.guid,
		flushed: size, last: size,
	}
	if w.oldest >= 0 {
		h.tail = w.oldest
	}
	h.encode(p)
	first := min(h.length, w.ring.length-w.head)
	if _, err := w.file.WriteAt(p[:first], w.ring.offset+w.head); err != nil {
		return err
	}
	if first < h.length {
		if _, err := w.file.WriteAt(p[first:], w.ring.offset); err != nil {
			return err
		}
	}
	w.oldest = w.head
	w.head = (w.head + h.length) % w.ring.length
	return nil
}

// settled says that the file was synced after every page was written to its place.
func (w *logWriter) settled() { w.oldest = -1 }

// commit makes the images durable, a part at a time, and writes them to their places. What each part leaves is
// whole: the parts are taken in the order of images.
func (w *logWriter) commit(images []pageImage, size int64) error {
	for part := range slices.Chunk(images, w.maxPages()) {
		if err := w.append(part, size); err != nil {
			return err
		}
		if err := w.file.Sync(); err != nil {
			return err
		}
		for _, image := range part {
			if _, err := w.file.WriteAt(image.bytes, image.offset); err != nil {
				return err
			}
		}
	}
	return nil
}

// sortImages puts pages into an order of which every part is a whole state: those of the BAT first, the last one
// before all others, because a chunk's bitmap block has its entry behind those of the chunk's payload blocks; then
// those of bitmaps.
func sortImages(images []pageImage, bat span) {
	inBAT := func(i pageImage) bool { return i.offset >= bat.offset && i.offset < bat.end() }
	slices.SortFunc(images, func(a, b pageImage) int {
		switch {
		case inBAT(a) != inBAT(b):
			if inBAT(a) {
				return -1
			}
			return 1
		case inBAT(a):
			return cmp.Compare(b.offset, a.offset)
		default:
			return cmp.Compare(a.offset, b.offset)
		}
	})
}
