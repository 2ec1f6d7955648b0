package vhd

import (
	"cmp"
	"fmt"
	"slices"

	"vmreplica/internal/durable"
)

// snapshot is a page as it was when a Flush began.
type snapshot struct {
	offset int64
	data   []byte
}

// Flush makes every write that completed before it durable. Reads and writes go on beside it. Its first error is
// final: every later write and Flush answers it.
func (s *sparse) Flush() error {
	if s.mode != durable.ReadWrite {
		return nil
	}
	s.flushing.Lock()
	defer s.flushing.Unlock()
	return s.flush()
}

// flush is Flush with flushing held.
func (s *sparse) flush() error {
	s.mu.Lock()
	if s.failed != nil {
		defer s.mu.Unlock()
		return s.failed
	}
	held := s.cache.hold()
	var fresh, others []snapshot
	for _, p := range held {
		noted := snapshot{p.offset, slices.Clone(p.data)}
		if p.fresh {
			fresh = append(fresh, noted)
		} else {
			others = append(others, noted)
		}
		p.fresh = false
	}
	s.mu.Unlock()
	if err := s.write(fresh, others); err != nil {
		return s.fail(fmt.Errorf("flush VHD: %w", err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cache.release(held)
	return nil
}

// write puts the snapshots into the file: what nothing points to first.
func (s *sparse) write(fresh, others []snapshot) error {
	if err := s.writeAll(fresh); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return err
	}
	if len(others) == 0 {
		return nil
	}
	if err := s.writeAll(others); err != nil {
		return err
	}
	return s.file.Sync()
}

// writeAll writes in the order of the file, neighbours together.
func (s *sparse) writeAll(noted []snapshot) error {
	slices.SortFunc(noted, func(a, b snapshot) int { return cmp.Compare(a.offset, b.offset) })
	for i := 0; i < len(noted); {
		gathered, start := noted[i].data, noted[i].offset
		for i++; i < len(noted) && noted[i].offset == start+int64(len(gathered)) && len(gathered) < maxTransfer; i++ {
			gathered = append(gathered, noted[i].data...)
		}
		if _, err := s.file.WriteAt(gathered, start); err != nil {
			return err
		}
	}
	return nil
}

// fail makes err final.
func (s *sparse) fail(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = err
	}
	return s.failed
}

// flushIfFull flushes when too much is dirty, and answers the error of a Flush that failed.
func (s *sparse) flushIfFull() error {
	if full, err := s.full(); err != nil || !full {
		return err
	}
	s.flushing.Lock()
	defer s.flushing.Unlock()
	if full, err := s.full(); err != nil || !full {
		return err
	}
	return s.flush()
}

func (s *sparse) full() (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cache.full(), s.failed
}
