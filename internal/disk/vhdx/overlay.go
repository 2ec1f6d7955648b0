package vhdx

import (
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

// overlay is a log replayed in memory: where the newest content of each page lies in the log itself, and what is
// zero. The pages themselves stay in the file.
type overlay struct {
	reader   logReader
	sequence *activeSequence
	pages    map[int64]overlayPage
	zeros    []overlayZero
	changes  int32
}

type overlayPage struct {
	at       int64 // of the data sector in the ring
	leading  [8]byte
	trailing [4]byte
	order    int32
}

type overlayZero struct {
	span
	order int32
}

// An overlay of the largest size takes some 20 MiB. Logs of 1 MiB, which everybody makes, have 250 pages.
const (
	maxOverlayPages = 1 << 17
	maxOverlayZeros = 1 << 10
)

// readLog finds what is to be replayed of a file of size bytes; nil when the header says nothing is.
func readLog(file durable.File, h *header, size int64) (*overlay, error) {
	if h.logGUID == (guid{}) {
		return nil, nil
	}
	o := &overlay{
		reader: logReader{file: file, ring: h.log, guid: h.logGUID},
		pages:  make(map[int64]overlayPage),
	}
	var err error
	if o.sequence, err = o.reader.findActive(); err != nil {
		return nil, err
	}
	switch {
	case o.sequence == nil:
		return nil, failure.New(failure.Corrupt, failure.ReasonImageUnreadable,
			"the VHDX file is damaged: its header names the log %s, which has no entries that can be replayed", h.logGUID).
			Try("QEMU leaves such a file when it is killed; `qemu-img check -r all` mends that")
	case o.sequence.head.flushed > size:
		return nil, corrupt("it was cut: its log was written when it had at least %d bytes, now it has %d",
			o.sequence.head.flushed, size)
	}
	return o, o.reader.replay(o.sequence, func(d descriptor, _ []byte) error {
		if d.target.end() > o.fileSize(size) {
			return corrupt("its log has a change of %d bytes at %d, outside the file", d.target.length, d.target.offset)
		}
		return o.add(d)
	})
}

// fileSize is what a file of size bytes grows to by the replay.
func (o *overlay) fileSize(size int64) int64 {
	if o == nil {
		return size
	}
	return max(size, o.sequence.head.last)
}

func (o *overlay) add(d descriptor) error {
	o.changes++
	if d.zero {
		if len(o.zeros) == maxOverlayZeros {
			return unsupported("its log zeroes more than %d ranges", maxOverlayZeros)
		}
		o.zeros = append(o.zeros, overlayZero{d.target, o.changes})
		return nil
	}
	o.pages[d.target.offset] = overlayPage{d.at, d.leading, d.trailing, o.changes}
	if len(o.pages) > maxOverlayPages {
		return unsupported("its log changes more than %d pages", maxOverlayPages)
	}
	return nil
}

// patch makes p, the page at off, what it is after the replay.
func (o *overlay) patch(p []byte, off int64) error {
	page, found := o.pages[off]
	for _, zero := range o.zeros {
		if zero.overlaps(span{off, pageSize}) && zero.order > page.order {
			clear(p)
			found = false
		}
	}
	if !found {
		return nil
	}
	sector := make([]byte, logSector)
	if err := o.reader.sector(sector, page.at); err != nil {
		return err
	}
	d := descriptor{leading: page.leading, trailing: page.trailing}
	copy(p, d.page(sector))
	return nil
}

// apply replays durably: the file is as long as the log says and holds every change. The header still names the log.
func (o *overlay) apply(size int64) error {
	file := o.reader.file
	if last := o.fileSize(size); last > size {
		if err := file.Truncate(last); err != nil {
			return err
		}
	}
	err := o.reader.replay(o.sequence, func(d descriptor, sector []byte) error {
		if d.zero {
			return file.Punch(d.target.offset, d.target.length)
		}
		_, err := file.WriteAt(d.page(sector), d.target.offset)
		return err
	})
	if err != nil {
		return err
	}
	return file.Sync()
}
