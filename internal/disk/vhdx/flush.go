package vhdx

import (
	"errors"
	"fmt"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
)

// errReadOnly is answered for changing a file that was opened for reading.
var errReadOnly = errors.New("the VHDX file is open for reading only")

// batch is what one Flush makes durable: the metadata of one instant.
type batch struct {
	held   []*page
	images []pageImage
	// freed are places that no entry of the BAT names once the images are durable.
	freed []int64
	// size is the file's.
	size int64
}

// maxFree bounds the places that are remembered for use: 8 MiB. The space of those beyond it is given back all the
// same.
const maxFree = 1 << 20

// Flush makes every write that completed before it durable. Reads and writes go on beside it. Its first error is
// final: every later write and Flush answers it.
func (v *virtualDisk) Flush() error {
	if v.mode != durable.ReadWrite {
		return nil
	}
	v.flushing.Lock()
	defer v.flushing.Unlock()
	return v.flush()
}

// flush is Flush with flushing held.
func (v *virtualDisk) flush() error {
	b, err := v.hold()
	if err != nil {
		return err
	}
	if err = v.write(b); err != nil {
		err = fmt.Errorf("flush the VHDX file: %w", err)
	}
	v.release(b, err)
	return err
}

// hold notes everything that is dirty. From here on it is clean, but for what changes again.
func (v *virtualDisk) hold() (*batch, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.failed != nil {
		return nil, v.failed
	}
	b := &batch{freed: v.freed, size: v.end}
	v.freed = nil
	b.held, b.images = v.pages.hold()
	return b, nil
}

// release lets go of the batch.
func (v *virtualDisk) release(b *batch, failed error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if failed != nil {
		v.failed = failed
		return
	}
	v.pages.release(b.held)
	v.free = append(v.free, b.freed[:min(len(b.freed), maxFree-len(v.free))]...)
}

// write puts the batch into the file: data and size first, then the log, then each page in its place. The places
// that became free are cleared only then.
func (v *virtualDisk) write(b *batch) error {
	if err := v.sync(len(b.images) > 0, b.size); err != nil {
		return err
	}
	sortImages(b.images, v.regions.bat)
	if err := v.log.commit(b.images, b.size); err != nil {
		return err
	}
	for _, at := range b.freed {
		if err := v.file.Punch(at, v.block); err != nil {
			return err
		}
		v.unsynced.Add(at, v.block)
	}
	return nil
}

// sync makes data, the file's size and the pages in their places durable. When logged is set the header then names a
// log; a new one gets its first, empty entry before the sync. flushing is held.
func (v *virtualDisk) sync(logged bool, size int64) error {
	begin := logged && v.log.guid == (guid{})
	if begin {
		if err := v.log.begin(size); err != nil {
			return err
		}
	}
	if err := v.file.Sync(); err != nil {
		return err
	}
	v.log.settled()
	if !begin {
		return nil
	}
	v.session.Lock()
	defer v.session.Unlock()
	return v.change(func(h *header) { h.logGUID = v.log.guid })
}

// change updates the header, with the session's FileWriteGuid; session is held.
func (v *virtualDisk) change(to func(*header)) error {
	err := v.updateHeader(func(h *header) {
		if !v.touched {
			h.fileWrite = newGUID()
		}
		to(h)
	})
	if err != nil {
		return err
	}
	v.touched = true
	return nil
}

// begin gives the file a new DataWriteGuid before the session's first change of the disk.
func (v *virtualDisk) begin() error {
	if v.begun.Load() {
		return nil
	}
	v.session.Lock()
	defer v.session.Unlock()
	if v.begun.Load() {
		return nil
	}
	if err := v.failure(); err != nil {
		return err
	}
	if err := v.change(func(h *header) { h.dataWrite = newGUID() }); err != nil {
		return v.fail(fmt.Errorf("give the VHDX file a new identity: %w", err))
	}
	v.begun.Store(true)
	return nil
}

// SetIdentity flushes and makes id the DataWriteGuid. It stands for the rest of the session.
func (v *virtualDisk) SetIdentity(id disk.Identity) error {
	if v.mode != durable.ReadWrite {
		return errReadOnly
	}
	if id == disk.None {
		return invalid("a VHDX file has an identity that is not zero")
	}
	v.flushing.Lock()
	defer v.flushing.Unlock()
	if err := v.flush(); err != nil {
		return err
	}
	v.session.Lock()
	defer v.session.Unlock()
	if err := v.change(func(h *header) { h.dataWrite = id }); err != nil {
		return v.fail(fmt.Errorf("set the identity of the VHDX file: %w", err))
	}
	v.begun.Store(true)
	return nil
}

// settle flushes and ends the log: the header names none, and other programs need not replay.
func (v *virtualDisk) settle() error {
	if v.mode != durable.ReadWrite {
		return nil
	}
	v.flushing.Lock()
	defer v.flushing.Unlock()
	if !v.dirty() {
		return v.failure()
	}
	if err := v.flush(); err != nil {
		return err
	}
	if v.log.guid == (guid{}) {
		return nil
	}
	if err := v.endLog(); err != nil {
		return v.fail(fmt.Errorf("end the log of the VHDX file: %w", err))
	}
	return nil
}

// dirty says whether the session changed anything.
func (v *virtualDisk) dirty() bool {
	v.session.Lock()
	defer v.session.Unlock()
	return v.touched
}

// endLog makes the pages durable in their places, and then takes the log's name out of the header.
func (v *virtualDisk) endLog() error {
	if v.log.oldest >= 0 {
		if err := v.file.Sync(); err != nil {
			return err
		}
	}
	v.session.Lock()
	defer v.session.Unlock()
	if err := v.change(func(h *header) { h.logGUID = guid{} }); err != nil {
		return err
	}
	v.log.guid = guid{}
	return nil
}

// failure is the error that is final, nil when there is none.
func (v *virtualDisk) failure() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.failed
}

// fail makes err final.
func (v *virtualDisk) fail(err error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.failed = err
	return err
}

// flushIfFull flushes when too much metadata is dirty, and answers the error of a Flush that failed.
func (v *virtualDisk) flushIfFull() error {
	if full, err := v.full(); err != nil || !full {
		return err
	}
	v.flushing.Lock()
	defer v.flushing.Unlock()
	if full, err := v.full(); err != nil || !full {
		return err
	}
	return v.flush()
}

func (v *virtualDisk) full() (bool, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.pages.full(), v.failed
}
