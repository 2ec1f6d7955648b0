package qcow2

import (
	"fmt"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
)

// Seal flushes and makes parent the backing file, by its name. Sealing again replaces it. The name is written where no
// header points to, and made durable by the flush. After a crash the header names the parent that was, or the new one
// whole, and then everything flushed is there. parent is not opened.
func (o *Overlay) Seal(parent disk.Parent) error {
	if o.mode != durable.ReadWrite {
		return errReadOnly
	}
	if err := checkParent(parent.Name, parent.Format); err != nil {
		return err
	}
	o.flushing.Lock()
	defer o.flushing.Unlock()
	if _, err := o.full(); err != nil {
		return err
	}
	sealed := o.header
	sealed.name, sealed.format = parent.Name, driverOf(parent.Format)
	sealed.nameAt = o.header.freePlace()
	if _, err := o.file.WriteAt([]byte(parent.Name), sealed.nameAt); err != nil {
		return fmt.Errorf("seal qcow2 overlay: %w", err)
	}
	if err := o.flush(); err != nil {
		return err
	}
	if err := o.writeHeader(&sealed); err != nil {
		return o.fail(fmt.Errorf("seal qcow2 overlay: %w", err))
	}
	o.header.name, o.header.format, o.header.nameAt = sealed.name, sealed.format, sealed.nameAt
	return nil
}

// driverOf is the name that the header has for a format: QEMU's, who calls a VHD by the program that had it first.
func driverOf(format string) string {
	if format == "vhd" {
		return "vpc"
	}
	return format
}

// writeHeader makes h the file's header with one write of a sector.
func (o *Overlay) writeHeader(h *header) error {
	if _, err := o.file.WriteAt(h.sector(), 0); err != nil {
		return err
	}
	return o.file.Sync()
}

// fail makes err final.
func (o *Overlay) fail(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failed = err
	return err
}

// Parent is the backing file's name and format as the header has them; both empty before Seal.
func (o *Overlay) Parent() (name, format string) {
	o.flushing.Lock()
	defer o.flushing.Unlock()
	return o.header.name, o.header.format
}
