package tracking_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"vmreplica/agent-primary/tracking"
	"vmreplica/internal/durable"
	"vmreplica/internal/hrl"
	"vmreplica/internal/replication"
)

// marksOf are the blocks that a log holds, looked at in a copy.
func marksOf(t testing.TB, path string, known hrl.Disk, size int64) map[int64]bool {
	t.Helper()
	content, err := os.ReadFile(path)
	must(t, err)
	directory := t.TempDir()
	must(t, os.WriteFile(filepath.Join(directory, "copy"), content, 0o600))
	dir, err := durable.OpenDir(directory)
	must(t, err)
	defer dir.Close()
	known.Size = size
	log, err := hrl.Open(dir, "copy", known)
	must(t, err)
	defer log.Abandon()
	must(t, log.Flip())
	found := map[int64]bool{}
	for at := int64(0); at < size; {
		first, n, err := log.Next(at, size, 1<<30)
		must(t, err)
		if n <= 0 {
			break
		}
		for at = first; at < first+n; at += hrl.BlockSize {
			found[at/hrl.BlockSize] = true
		}
	}
	return found
}

// control is a fault that the history must notice.
type control uint8

const (
	sound control = iota
	// readLive reads the running disk in place of the cut: copy-before-write is off.
	readLive
	// forgetEarly clears the marks when they were read.
	forgetEarly
)

// history is a machine's writes, a shipper and its replica, one step after the other.
type history struct {
	*rig
	random  *rand.Rand
	control control
	// model is what the disk must hold, replica what was acknowledged, received what was shipped since.
	model, replica, received []byte
	epoch                    *tracking.Epoch
	// atCut is the model at the cut; nil for a round.
	atCut []byte
	acks  int
}

const historySize = 300<<12 + 512

func play(t *testing.T, seed uint64, c control) (acks int, err error) {
	h := &history{
		rig: newRig(t, 24<<12, historySize), random: rand.New(rand.NewPCG(seed, 7)), control: c,
		model: make([]byte, historySize), replica: make([]byte, historySize), received: make([]byte, historySize),
	}
	defer h.kill()
	for step := range 250 {
		if err := h.step(); err != nil {
			return h.acks, fmt.Errorf("seed %d, step %d: %w", seed, step, err)
		}
		if step%4 == 0 {
			if err := h.check(); err != nil {
				return h.acks, fmt.Errorf("seed %d, after step %d: %w", seed, step, err)
			}
		}
	}
	return h.acks, h.check()
}

func (h *history) step() error {
	switch what := h.random.IntN(20); {
	case what < 9:
		return h.write()
	case what < 11:
		return h.start()
	case what < 15:
		return h.ship(1 + h.random.IntN(4))
	case what < 17:
		return h.acknowledge()
	case what == 17:
		return h.give()
	case what == 18 && h.random.IntN(4) == 0:
		h.restart()
	}
	return nil
}

// write changes a range of any alignment.
func (h *history) write() error {
	off := h.random.Int64N(historySize)
	n := 1 + h.random.Int64N(min(historySize-off, 1<<(4+h.random.IntN(14))))
	switch d := h.disks[0]; h.random.IntN(6) {
	case 0:
		clear(h.model[off : off+n])
		return d.Zero(off, n, h.random.IntN(2) == 0)
	case 1:
		if err := d.Trim(off, n); err != nil {
			return err
		}
		return h.trimmed(off, n)
	default:
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(h.random.Uint32())
		}
		copy(h.model[off:], p)
		_, err := d.WriteAt(p, off)
		return err
	}
}

// trimmed takes over what a trim did: each block of the range is zeros, or as it was.
func (h *history) trimmed(off, n int64) error {
	now := h.images[0].snapshot()
	for at := off; at < off+n; {
		end := min((at/hrl.BlockSize+1)*hrl.BlockSize, off+n)
		same := bytes.Equal(now[at:end], h.model[at:end])
		if !same && !bytes.Equal(now[at:end], make([]byte, end-at)) {
			return fmt.Errorf("trimming [%d, %d) left neither", at, end)
		}
		copy(h.model[at:end], now[at:end])
		at = end
	}
	return nil
}

func (h *history) start() (err error) {
	if h.epoch != nil {
		if _, err := h.group.Round(context.Background()); !errors.Is(err, tracking.ErrEpochOpen) {
			return fmt.Errorf("a second epoch: %w", err)
		}
		return nil
	}
	if h.random.IntN(3) == 0 {
		h.atCut = nil
		h.epoch, err = h.group.Round(context.Background())
		return err
	}
	h.atCut = bytes.Clone(h.model)
	h.epoch, err = h.group.Cut(context.Background(), replication.NewID())
	return err
}

// ship sends some ranges, or parts of them.
func (h *history) ship(count int) error {
	if h.epoch == nil {
		return nil
	}
	for r, err := range h.epoch.Extents(0) {
		if err != nil || count == 0 {
			return err
		}
		count--
		if h.random.IntN(3) == 0 && r.Length > hrl.BlockSize {
			r.Length = hrl.BlockSize * (1 + h.random.Int64N(r.Length/hrl.BlockSize))
		}
		p := make([]byte, r.Length)
		err := h.epoch.ReadAt(0, p, r.Offset)
		if h.control == readLive && err == nil {
			_, err = h.disks[0].ReadAt(p, r.Offset)
		}
		switch {
		case errors.Is(err, tracking.ErrBroken):
			return h.end()
		case err != nil:
			return err
		}
		copy(h.received[r.Offset:], p)
		if err := h.epoch.Sent(0, r.Offset, r.Length); err != nil {
			return err
		}
	}
	if h.control == forgetEarly {
		if err := h.disks[0].ForgetEarly(); err != nil && !errors.Is(err, hrl.ErrPending) {
			return err
		}
	}
	return nil
}

// acknowledge ships the rest and commits. A cut that held must be what the disk was then, bit for bit.
func (h *history) acknowledge() error {
	if err := h.ship(1 << 20); err != nil || h.epoch == nil {
		return err
	}
	err := h.epoch.Ack()
	switch {
	case errors.Is(err, tracking.ErrRound) && h.atCut == nil, errors.Is(err, tracking.ErrBroken), errors.Is(err, hrl.ErrPending):
		return h.end()
	case err != nil:
		return err
	}
	h.epoch = nil
	h.acks++
	copy(h.replica, h.received)
	for at := range h.replica {
		if h.replica[at] != h.atCut[at] {
			return fmt.Errorf("the replica differs from the cut at %d", at)
		}
	}
	return nil
}

// end turns what there is into a round.
func (h *history) end() error {
	err := h.epoch.End()
	h.epoch = nil
	return err
}

// give loses the differencing disk.
func (h *history) give() error {
	copy(h.received, h.replica)
	if h.epoch == nil {
		return h.group.Restore()
	}
	err := h.epoch.Abort()
	h.epoch = nil
	return err
}

// restart kills the agent, or stops it, and loses the differencing disk or not.
func (h *history) restart() {
	if h.random.IntN(2) == 0 {
		h.kill()
	} else {
		if h.epoch != nil {
			must(h.t, h.epoch.End())
		}
		h.close()
	}
	if h.random.IntN(2) == 0 {
		copy(h.received, h.replica)
	}
	h.epoch = nil
	h.open()
}

// check asks that the disk is as its model, that no changed block is clean, and that nothing was lost.
func (h *history) check() error {
	if !bytes.Equal(h.images[0].snapshot(), h.model) {
		return errors.New("the disk is not as its model")
	}
	if len(h.losses) != 1 { // of being new
		return fmt.Errorf("tracking was lost: %v", h.losses)
	}
	marks := h.marks(0)
	for at := 0; at < len(h.model); at += hrl.BlockSize {
		end := min(at+hrl.BlockSize, len(h.model))
		if !bytes.Equal(h.model[at:end], h.replica[at:end]) && !marks[int64(at/hrl.BlockSize)] {
			return fmt.Errorf("block %d changed and is clean", at/hrl.BlockSize)
		}
	}
	if used := h.budget.Used(); h.epoch == nil && used != 0 || used > h.budget.Limit() {
		return fmt.Errorf("%d bytes of the budget are in use", used)
	}
	return nil
}

func TestHistories(t *testing.T) {
	acks := 0
	for seed := range uint64(20) {
		n, err := play(t, seed, sound)
		if err != nil {
			t.Fatal(err)
		}
		acks += n
	}
	if acks < 40 {
		t.Errorf("only %d cuts were acknowledged", acks)
	}
}

func TestHistoriesNoticeFaults(t *testing.T) {
	for what, c := range map[string]control{"copy-before-write off": readLive, "marks cleared when read": forgetEarly} {
		noticed := error(nil)
		for seed := uint64(0); seed < 20 && noticed == nil; seed++ {
			_, noticed = play(t, seed, c)
		}
		if noticed == nil {
			t.Errorf("%s: nobody noticed", what)
		}
		t.Logf("%s: %v", what, noticed)
	}
}
