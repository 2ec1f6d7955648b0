package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
)

var errImageReadOnly = errors.New("the qcow2 image is open for reading only")

// admit refuses a range that cannot be written, and any after a Flush that failed.
func (i *Image) admit(off, n int64) error {
	if i.mode != durable.ReadWrite {
		return errImageReadOnly
	}
	if err := disk.CheckRange(i.header.size, off, n); err != nil {
		return err
	}
	i.mu.Lock()
	failed, prepared := i.failed, i.space.prepared
	i.mu.Unlock()
	if failed != nil || prepared || n == 0 {
		return failed
	}
	return i.prepare()
}

// prepare clears, before anything changes, the header's marks of what does not follow changes made here, and fills
// the file's last cluster up.
func (i *Image) prepare() error {
	i.changing.Lock()
	defer i.changing.Unlock()
	if i.space.prepared {
		return nil
	}
	if i.header.autoclear != 0 {
		if _, err := i.file.WriteAt(make([]byte, 8), fieldAutoclear); err != nil {
			return fmt.Errorf("prepare qcow2 image for writing: %w", err)
		}
		if err := i.file.Sync(); err != nil {
			return i.fail(fmt.Errorf("prepare qcow2 image for writing: %w", err))
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if whole := i.header.clusters(i.size) << i.header.bits; whole != i.size {
		if err := i.file.Truncate(whole); err != nil {
			return fmt.Errorf("prepare qcow2 image for writing: %w", err)
		}
		i.size = whole
	}
	i.space.prepared = true
	return nil
}

// fail makes err final.
func (i *Image) fail(err error) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.failed = err
	return err
}

// WriteAt writes p at off, at any alignment.
func (i *Image) WriteAt(p []byte, off int64) (int, error) {
	if err := i.admit(off, int64(len(p))); err != nil {
		return 0, err
	}
	for done := 0; done < len(p); {
		n, err := i.writeSome(p[done:], off+int64(done))
		if err != nil {
			return done, err
		}
		done += n
	}
	return len(p), nil
}

// writeSome writes the beginning of p: where it lies, or to a new place.
func (i *Image) writeSome(p []byte, off int64) (int, error) {
	n, err := i.overwrite(off, int64(len(p)), func(host, n int64) error {
		_, err := i.file.WriteAt(p[:n], host)
		return err
	})
	if n > 0 || err != nil {
		return int(n), err
	}
	i.changing.Lock()
	defer i.changing.Unlock()
	if err := i.makeRoom(); err != nil {
		return 0, err
	}
	return i.place(p, off)
}

// overwrite calls do with the place in the file of [off, off+n), as far as it is in one piece and belongs to the disk
// alone. 0 when it is not.
func (i *Image) overwrite(off, n int64, do func(host, n int64) error) (int64, error) {
	i.inFlight.RLock()
	defer i.inFlight.RUnlock()
	host, n, err := i.own(off, n)
	if n == 0 || err != nil {
		return 0, err
	}
	if err := do(host, n); err != nil {
		return 0, fmt.Errorf("write qcow2 image: %w", err)
	}
	return n, nil
}

// own is where off lies in the file, and how many of n bytes from there on lie behind it in clusters of the disk's
// own; 0 when off does not.
func (i *Image) own(off, n int64) (host, length int64, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	g := &i.header.geometry
	table, err := i.table(off / g.span)
	if table == 0 || err != nil || i.l1[off/g.span]&flagCopied == 0 {
		return 0, 0, err
	}
	at := table + off%g.span>>g.bits*g.entry
	raw, err := i.metadata(at - at%g.page)
	if err != nil {
		return 0, 0, err
	}
	for rest := raw[at%g.page:]; length < n && len(rest) > 0; rest = rest[g.entry:] {
		p, err := g.piece(g.entryAt(rest), off+length)
		if err != nil {
			return 0, 0, err
		}
		owned := p.Kind == disk.Data && binary.BigEndian.Uint64(rest)&(flagCopied|flagCompressed) == flagCopied
		if !owned || length > 0 && p.host != host+length {
			break
		}
		if length == 0 {
			host = p.host
		}
		length += p.Length
		if p.End()&(g.cluster-1) != 0 {
			break
		}
	}
	length = min(length, n)
	if length > 0 && i.ofTable(host, length) {
		return 0, 0, damaged("the content at %d of the disk is placed at %d of the file", off, host)
	}
	return host, length, nil
}

// makeRoom flushes when too much is dirty. changing is held.
func (i *Image) makeRoom() error {
	i.mu.Lock()
	failed, full := i.failed, i.pages.full() || len(i.space.freed) >= maxFreed
	i.mu.Unlock()
	if failed != nil || !full {
		return failed
	}
	return i.flush()
}
