package hrl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"time"

	"vmreplica/internal/replication"
)

// Info is a log in words, for an operator.
type Info struct {
	Identity, Baseline replication.ID
	DiskSize           int64
	FileBytes          int64
	Opened             uint64
	BootID             string
	// Clean says that it was closed; else an agent has it open, or ended without closing it.
	Clean bool
	Loss  Loss
	// Marked is how much of the disk the two areas of 4 KiB marks and the sent marks stand for, in bytes. Which of the
	// two is live is known to the agent that has the log open; when it is opened again everything is.
	MarkedA, MarkedB, Sent int64
}

// Inspect reads a log of size bytes without opening it as one. An agent may have it open: the marks are then those of
// no one moment.
func Inspect(r io.ReaderAt, size int64) (Info, error) {
	both := make([]byte, slots*pageSize)
	if _, err := r.ReadAt(both, 0); err != nil && !errors.Is(err, io.EOF) {
		return Info{}, fmt.Errorf("read the log's header: %w", err)
	}
	h, err := newest(both[:pageSize], both[pageSize:])
	if err != nil {
		return Info{}, err
	}
	if want := FileBytes(h.DiskSize); size != want {
		return Info{}, fmt.Errorf("the log has %d bytes instead of %d", size, want)
	}
	info := Info{
		Identity: h.Identity, Baseline: h.Baseline, DiskSize: h.DiskSize, FileBytes: size, Opened: h.Opened,
		BootID: h.BootID, Clean: h.Clean, Loss: h.Lost,
	}
	units := [3]int64{BlockSize, BlockSize, SentSize}
	for i, into := range []*int64{&info.MarkedA, &info.MarkedB, &info.Sent} {
		marks, err := countMarks(r, layoutOf(h.DiskSize).areas[i])
		if err != nil {
			return Info{}, err
		}
		*into = marks * units[i]
	}
	return info, nil
}

// countMarks counts the bits of the pages that an area's summary names, a page at a time.
func countMarks(r io.ReaderAt, a area) (total int64, err error) {
	summary, page := make([]byte, pageSize), make([]byte, pageSize)
	for at := int64(0); at < a.summaryBytes; at += pageSize {
		if _, err := r.ReadAt(summary, a.summary+at); err != nil {
			return 0, fmt.Errorf("read the log's summary: %w", err)
		}
		for i := int64(0); i < bitsPerPage; i++ {
			if summary[i/8]&(1<<(i%8)) == 0 {
				continue
			}
			off := (at*8 + i) * pageSize
			if off >= a.bitsBytes {
				return total, nil
			}
			if _, err := r.ReadAt(page, a.bits+off); err != nil {
				return 0, fmt.Errorf("read the log's marks: %w", err)
			}
			for word := 0; word < pageSize; word += 8 {
				total += int64(bits.OnesCount64(binary.LittleEndian.Uint64(page[word:])))
			}
		}
	}
	return total, nil
}

// Lines are the facts, each a name and what it is.
func (i Info) Lines() [][2]string {
	state := "open, or left open by an agent that was killed or a host that was restarted"
	if i.Clean {
		state = "closed cleanly"
	}
	lines := [][2]string{
		{"disk", string(i.Identity)},
		{"disk size", fmt.Sprintf("%d bytes", i.DiskSize)},
		{"log size", fmt.Sprintf("%d bytes", i.FileBytes)},
		{"state", state},
		{"tracking", i.Loss.String()},
		{"baseline", string(i.Baseline)},
		{"opened", fmt.Sprintf("%d times, last in the host's boot %s", i.Opened, i.BootID)},
		{"marked", fmt.Sprintf("%d and %d bytes, live or in the epoch", i.MarkedA, i.MarkedB)},
		{"sent", fmt.Sprintf("%d bytes, not acknowledged", i.Sent)},
	}
	if i.Loss.Cause != None {
		lines = append(lines, [2]string{"lost since", i.Loss.At.Format(time.RFC3339)})
	}
	return lines
}
