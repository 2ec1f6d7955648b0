package qcow2

import (
	"errors"
	"fmt"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
)

// ErrUnaligned is answered for a write that does not begin and end at a multiple of 4 KiB or at the disk's end.
var ErrUnaligned = errors.New("range not in multiples of 4 KiB")

var errReadOnly = errors.New("the overlay is open for reading only")

// checkWrite refuses a range that cannot be written.
func (o *Overlay) checkWrite(off, n int64) error {
	if o.mode != durable.ReadWrite {
		return errReadOnly
	}
	if err := disk.CheckRange(o.size, off, n); err != nil {
		return err
	}
	if off%subclusterSize != 0 || n%subclusterSize != 0 && off+n != o.size {
		return fmt.Errorf("%w: [%d, +%d)", ErrUnaligned, off, n)
	}
	return nil
}

// WriteAt writes multiples of 4 KiB at multiples of 4 KiB; only at the disk's end the last may be shorter.
func (o *Overlay) WriteAt(p []byte, off int64) (int, error) {
	if err := o.checkWrite(off, int64(len(p))); err != nil {
		return 0, err
	}
	done := 0
	for done < len(p) {
		at := off + int64(done)
		n := min(len(p)-done, int(sliceSpan-at%sliceSpan))
		if err := o.writeSlice(p[done:done+n], at); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// writeSlice writes within one slice: place, data, and only then the bits that make it visible.
func (o *Overlay) writeSlice(p []byte, off int64) error {
	entries, err := o.place(off, int64(len(p)))
	if err != nil {
		return err
	}
	for at := 0; at < len(p); {
		host, n := contiguous(entries, off, off+int64(at), int64(len(p)-at))
		if _, err := o.file.WriteAt(p[at:at+int(n)], host); err != nil {
			return err
		}
		at += int(n)
	}
	return o.mark(off, int64(len(p)), disk.Data)
}

// contiguous is where at lies in the file, and how many of n bytes from there on lie behind it. entries begin with
// off's cluster.
func contiguous(entries []entry, off, at, n int64) (host, length int64) {
	i := at/clusterSize - off/clusterSize
	host = entries[i].host() + at%clusterSize
	length = clusterSize - at%clusterSize
	for i++; length < n && entries[i].host() == host+length; i++ {
		length += clusterSize
	}
	return host, min(length, n)
}

// place gives every cluster that [off, off+n) touches a place in the file, and returns their entries. The range
// lies within one slice.
func (o *Overlay) place(off, n int64) ([]entry, error) {
	first, last := off/clusterSize, (off+n-1)/clusterSize
	placed := make([]entry, last-first+1)
	return placed, o.modify(off/sliceSpan, len(placed), func(s *slice) {
		for i := range placed {
			at := (first + int64(i)) % sliceEntries
			if s.entries[at].host() == 0 {
				host := o.take()
				o.cache.change(s)[at].descriptor = uint64(host) | flagCopied
			}
			placed[i] = s.entries[at]
		}
	})
}

// mark makes [off, off+n), which lies within one slice, data or zeros.
func (o *Overlay) mark(off, n int64, kind disk.Kind) error {
	return o.modify(off/sliceSpan, 0, func(s *slice) {
		for at := off; at < off+n; {
			start := at - at%clusterSize
			upTo := min(start+clusterSize, off+n)
			i := start / clusterSize % sliceEntries
			marked := s.entries[i].marked(subclusterMask(at-start, upTo-start), kind)
			if marked != s.entries[i] {
				o.cache.change(s)[i] = marked
			}
			at = upTo
		}
	})
}

// modify calls change with mu held and a slice in memory whose L2 table exists, and with room for so many clusters.
// When too much is dirty it flushes first.
func (o *Overlay) modify(index int64, clusters int, change func(*slice)) error {
	for {
		if err := o.flushIfFull(); err != nil {
			return err
		}
		s, err := o.acquire(index)
		if err != nil {
			return err
		}
		room := o.room(clusters)
		if room && s == nil {
			s = o.newTable(index)
		}
		if room {
			change(s)
		}
		o.mu.Unlock()
		if room {
			return nil
		}
		if err := o.grow(clusters); err != nil {
			return err
		}
	}
}

// flushIfFull flushes when the dirty slices reached their bound, and answers the error of a Flush that failed.
func (o *Overlay) flushIfFull() error {
	if full, err := o.full(); err != nil || !full {
		return err
	}
	o.flushing.Lock()
	defer o.flushing.Unlock()
	if full, err := o.full(); err != nil || !full {
		return err
	}
	return o.flush()
}

func (o *Overlay) full() (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.cache.full(), o.failed
}

// Zero makes the range zeros by bits alone; the space of what was there stays allocated. Like a write it is in
// multiples of 4 KiB. A GiB that was absent costs an L2 table of 128 KiB.
func (o *Overlay) Zero(off, n int64) error {
	return o.zero(off, n, false)
}

// Unmap is Zero that gives back the space of the data it replaces.
func (o *Overlay) Unmap(off, n int64) error {
	return o.zero(off, n, true)
}

func (o *Overlay) zero(off, n int64, release bool) error {
	if err := o.checkWrite(off, n); err != nil {
		return err
	}
	for end := off + n; off < end; {
		upTo := min(off-off%sliceSpan+sliceSpan, end)
		if err := o.zeroSlice(off, upTo-off, release); err != nil {
			return err
		}
		off = upTo
	}
	return nil
}

// zeroSlice marks before it punches: punched data reads as zeros, which is what the range holds by then.
func (o *Overlay) zeroSlice(off, n int64, release bool) error {
	if !release {
		return o.mark(off, n, disk.Zero)
	}
	room := make([]entry, sliceEntries)
	before, err := o.entries(room, off, n)
	if err != nil {
		return err
	}
	if err := o.mark(off, n, disk.Zero); err != nil {
		return err
	}
	for r := range runs(before, off, n) {
		if r.Kind != disk.Data {
			continue
		}
		length := (r.Length + subclusterSize - 1) / subclusterSize * subclusterSize
		if err := o.file.Punch(r.host, length); err != nil {
			return fmt.Errorf("release space of the qcow2 overlay: %w", err)
		}
	}
	return nil
}
