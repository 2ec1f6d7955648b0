package vhd

import (
	"fmt"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
)

// Identity is the unique id.
func (s *sparse) Identity() disk.Identity {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	return s.footer.identity()
}

// SetIdentity flushes and writes both footers with another unique id. The copy in the first sector is durable before
// the footer at the end is changed: after a crash it decides, and has the old id or the new one.
func (s *sparse) SetIdentity(id disk.Identity) error {
	if s.mode != durable.ReadWrite {
		return errReadOnly
	}
	s.flushing.Lock()
	defer s.flushing.Unlock()
	if err := s.flush(); err != nil {
		return err
	}
	changed := *s.footer
	changed.setIdentity(id)
	s.mu.Lock()
	tail := s.tail
	s.mu.Unlock()
	for _, at := range []int64{0, tail} {
		if err := s.writeSynced(changed[:], at); err != nil {
			return s.fail(fmt.Errorf("set the VHD's unique id: %w", err))
		}
	}
	s.footer = &changed
	return nil
}

func (s *sparse) writeSynced(p []byte, off int64) error {
	if _, err := s.file.WriteAt(p, off); err != nil {
		return err
	}
	return s.file.Sync()
}
