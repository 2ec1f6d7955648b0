package hrl

import (
	"errors"
	"fmt"
	"runtime/debug"

	"vmreplica/internal/durable"
)

// ErrNotRecorded is answered when a log is lost and no place could be found where that would outlive the agent.
var ErrNotRecorded = errors.New("that the log is lost could not be recorded")

// guard does something with the mapping. A fault there, of a file that was cut short or cannot be read, makes the log
// lost instead of ending the agent.
func (l *Log) guard(do func()) error {
	fault := caught(do)
	if fault == nil {
		return nil
	}
	if err := l.Failed(fault); err != nil {
		return err
	}
	return errors.New(l.faulted(fault).Evidence)
}

// caught is what do ended with: nil, or the fault.
func caught(do func()) (fault error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch found := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }:
			fault = errors.New("its mapping cannot be used: the file was cut short, or its storage failed")
		default:
			fault = fmt.Errorf("%v", found)
		}
	}()
	do()
	return nil
}

// Lose makes the log lost, durably when it answers nil. The first cause stays. A log whose header cannot be written is
// removed, which says the same to whoever opens it.
func (l *Log) Lose(loss Loss) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if found := l.lost.Load(); found != nil {
		return found.unrecorded
	}
	if len(loss.Evidence) > evidenceBytes {
		loss.Evidence = loss.Evidence[:evidenceBytes]
	}
	if loss.At.IsZero() {
		loss.At = now()
	}
	err := l.change(func(h *header) { h.Lost = loss })
	if err != nil {
		l.broken = true
		err = l.remove(err)
	}
	l.lost.Store(&verdict{loss, err})
	return err
}

// Unrecorded is why the log's loss would not outlive the agent; nil when it would, and while the log is exact.
func (l *Log) Unrecorded() error {
	if found := l.lost.Load(); found != nil {
		return found.unrecorded
	}
	return nil
}

// remove takes the log's name away. The caller holds mu.
func (l *Log) remove(cause error) error {
	if l.file == nil {
		return fmt.Errorf("%w: %w", ErrNotRecorded, cause)
	}
	err := l.dir.Remove(l.name)
	if err == nil {
		err = l.dir.Sync(".")
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotRecorded, errors.Join(cause, err))
	}
	return nil
}

// change writes an altered header to one slot and then to the other, each synced with all that was marked until then.
// The caller holds mu.
func (l *Log) change(alter func(*header)) error {
	if l.file == nil || l.broken {
		return errors.New("the log has no file")
	}
	next := l.header
	next.Sequence++
	alter(&next)
	if err := writeHeader(l.file, next); err != nil {
		return err
	}
	l.header = next
	return nil
}

func writeHeader(file durable.File, h header) error {
	slot, err := h.encode()
	if err != nil {
		return err
	}
	for i := range slots {
		at := (h.Sequence + uint64(i)) % slots
		if _, err := file.WriteAt(slot, int64(at)*pageSize); err != nil {
			return fmt.Errorf("write the log's header: %w", err)
		}
		if err := file.Sync(); err != nil {
			return fmt.Errorf("write the log's header: %w", err)
		}
	}
	return nil
}

// changed is change for a caller who does not hold mu; an error makes the log lost.
func (l *Log) changed(alter func(*header)) error {
	l.mu.Lock()
	err := l.change(alter)
	l.mu.Unlock()
	if err != nil {
		return l.failed(err)
	}
	return nil
}

// failed makes the log lost to an error of its file.
func (l *Log) failed(err error) error {
	return errors.Join(err, l.Lose(lost(WriteFailed, "the log %s could not be written: %v", l.name, err)))
}
