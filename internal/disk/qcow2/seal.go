package qcow2

import (
	"fmt"

	"vmreplica/internal/durable"
)

// Seal flushes and makes parent, a file name of the format parentFormat, the backing file. Sealing again replaces
// it. After a crash the header names the parent that was, or the new one whole. parent is not opened.
func (o *Overlay) Seal(parent, parentFormat string) error {
	if o.mode != durable.ReadWrite {
		return errReadOnly
	}
	if err := checkParent(parent, parentFormat); err != nil {
		return err
	}
	o.flushing.Lock()
	defer o.flushing.Unlock()
	if err := o.flush(); err != nil {
		return err
	}
	sealed := o.header
	sealed.name, sealed.format = parent, parentFormat
	sealed.nameAt = o.header.freePlace()
	if err := o.writeHeader(&sealed); err != nil {
		err = fmt.Errorf("seal qcow2 overlay: %w", err)
		o.fail(err)
		return err
	}
	o.header = sealed
	return nil
}

// writeHeader makes the parent's name durable before the sector that points to it.
func (o *Overlay) writeHeader(h *header) error {
	if _, err := o.file.WriteAt([]byte(h.name), h.nameAt); err != nil {
		return err
	}
	if err := o.file.Sync(); err != nil {
		return err
	}
	if _, err := o.file.WriteAt(h.sector(), 0); err != nil {
		return err
	}
	return o.file.Sync()
}

func (o *Overlay) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failed = err
}

// Parent is the backing file's name and format as the header has them; both empty before Seal.
func (o *Overlay) Parent() (name, format string) {
	o.flushing.Lock()
	defer o.flushing.Unlock()
	return o.header.name, o.header.format
}
