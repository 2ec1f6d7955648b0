package ship_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"vmreplica/agent-primary/ship"
	"vmreplica/blockdiff"
	"vmreplica/internal/hrl"
	"vmreplica/internal/replication"
)

// TestNoMoreIsUnderWayThanTheCredit, and one frame always: the replica sees to both.
func TestNoMoreIsUnderWayThanTheCredit(t *testing.T) {
	for _, credit := range []int64{1, 200_000} {
		m := newMachine(t, ample, 4<<20, 4<<20)
		m.replica.credit = credit
		m.replica.way = func(ship.Open, uint64) deed { time.Sleep(time.Millisecond); return deliver }
		m.write(0, 100, 3<<20)
		m.write(1, 4<<20-5000, 5000)
		m.cycle()
		m.equal()
		if limit := max(credit, int64(m.limits.FrameBytes)); m.replica.most > limit || m.replica.most < limit/2 {
			t.Errorf("%d bytes were under way", m.replica.most)
		}
	}
}

// TestFramesOfEverySizeFit has runs much longer than a frame, blocks that take many extents, and the largest frames.
func TestFramesOfEverySizeFit(t *testing.T) {
	const size = 11<<20 + 512
	for _, bytes := range []int{1, 100_000, 1 << 20, blockdiff.MaxFramePlaintext - blockdiff.BlockSize} {
		m := newMachine(t, ample, size)
		m.limits.FrameBytes = bytes
		m.write(0, 0, 10<<20)
		for off := int64(0); off < 6<<20; off += 2 * hrl.BlockSize {
			must(t, m.disks[0].Zero(off, hrl.BlockSize, true))
		}
		m.write(0, size-100, 100)
		m.cycle()
		m.equal()
	}
}

// TestZerosTakeNoContentAndAreAcknowledgedInGoodTime: they cost no credit, and a frame of nothing else would never be full.
func TestZerosTakeNoContentAndAreAcknowledgedInGoodTime(t *testing.T) {
	const size = 40<<20 + 512
	m := newMachine(t, 0, size)
	m.write(0, 30<<20, 10)
	m.cycle()
	sent := m.replica.disks["a"].dataBytes
	must(t, m.disks[0].Trim(0, size))
	var covered, before int64
	m.replica.way = func(ship.Open, uint64) deed {
		m.replica.mu.Lock()
		defer m.replica.mu.Unlock()
		covered, before = max(covered, m.replica.disks["a"].unmapped-before), m.replica.disks["a"].unmapped
		return deliver
	}
	m.cycle()
	m.equal()
	if d := m.replica.disks["a"]; d.dataBytes != sent || d.unmapped < size || covered > 16<<20+blockdiff.BlockSize {
		t.Fatalf("%d bytes of content and %d of zeros, at most %d in a frame", d.dataBytes-sent, d.unmapped, covered)
	}
}

// TestWhatIsKeptGoesFirst lets the machine write to what is under way, to what would follow, and to what comes later.
// Everything goes once, as it was at the cut.
func TestWhatIsKeptGoesFirst(t *testing.T) {
	const total, kept = 3 << 20, 512 << 10
	for _, at := range []int64{768 << 10, 1 << 20, 1536 << 10} {
		m := newMachine(t, 4<<20, 4<<20)
		content := noise(total)
		_, err := m.disks[0].WriteAt(content, 0)
		must(t, err)
		m.replica.credit = 1
		m.replica.way = func(_ ship.Open, sequence uint64) deed {
			if sequence == 1 {
				m.write(0, at, kept)
			}
			time.Sleep(time.Millisecond)
			return deliver
		}
		cut := replication.NewID()
		outcome, err := ship.CatchUp(t.Context(), m.replica, m.options(cut))
		must(t, err)
		m.replica.commit(cut, outcome)
		must(t, outcome.Epoch.Ack())
		d := m.replica.disks["a"]
		if !bytes.Equal(d.committed[:total], content) || d.dataBytes != total {
			t.Fatalf("%d bytes went, of which some are not the cut's", d.dataBytes)
		}
		ahead := slices.IndexFunc(d.order, func(e blockdiff.Extent) bool { return e.Offset >= at })
		if ahead < 1 || d.order[ahead-1].End() > 1<<20 {
			t.Fatalf("it went in the order %v", d.order)
		}
	}
}

func TestChurnAboveTheLinkIsTold(t *testing.T) {
	m := newMachine(t, 8*hrl.BlockSize, 4<<20)
	m.replica.credit = 1
	var told []ship.Churn
	m.churn = func(c ship.Churn) { told = append(told, c) }
	m.write(0, 0, long)
	rounds, cuts := 0, 0
	cut := replication.NewID()
	m.replica.way = func(open ship.Open, sequence uint64) deed {
		switch {
		case sequence == 0 && open.Shipment != cut && rounds < 5:
			rounds++
			m.write(0, 0, long)
		case sequence == 1 && open.Shipment == cut:
			cuts++
			m.write(0, 0, long)
		}
		return deliver
	}
	outcome, err := ship.CatchUp(t.Context(), m.replica, m.options(cut))
	must(t, err)
	m.replica.commit(cut, outcome)
	must(t, outcome.Epoch.Ack())
	m.replica.way = nil
	m.cycle()
	m.equal()
	if len(told) < 4 || cuts < 2 || rounds != 5 {
		t.Fatalf("told %d times in %d rounds and %d cuts", len(told), rounds, cuts)
	}
	for _, churn := range told {
		if churn.DirtyBytesPerSecond <= 0 || churn.ShippedBytesPerSecond <= 0 {
			t.Errorf("%+v", churn)
		}
	}
}

func TestProgressCountsWhatIsAcknowledged(t *testing.T) {
	m := newMachine(t, 0, 1<<20, 1<<20)
	m.write(0, 0, area)
	m.write(1, 0, 10)
	var within ship.Figures
	m.replica.way = func(_ ship.Open, sequence uint64) deed {
		if sequence == 4 {
			within = m.progress.Figures()
		}
		return deliver
	}
	outcome := m.cycle()
	after := m.progress.Figures()
	if within.Rounds != 1 || within.DirtyBytes != area+4096 || within.PresentBytes != within.SentBytes {
		t.Errorf("within: %+v", within)
	}
	if after.Rounds != 2 || outcome.Rounds != 2 || after.SentBytes != area+4096 || after.PresentBytes != 0 || after.DirtyBytes != 0 {
		t.Errorf("after: %+v", after)
	}
	if after.WireBytes < area || after.WireBytes > area+16<<10 {
		t.Errorf("%d bytes on the wire for %d", after.WireBytes, after.SentBytes)
	}
	if outcome.Disks[0].Bytes != area || outcome.Disks[1].Bytes != 4096 {
		t.Errorf("%+v", outcome.Disks)
	}
}
