package ship_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"vmreplica/agent-primary/ship"
	"vmreplica/agent-primary/tracking"
	"vmreplica/blockdiff"
	"vmreplica/internal/failure"
	"vmreplica/internal/hrl"
	"vmreplica/internal/replication"
)

// area is how much a test writes to each of its disks, four frames.
const area = 64 * hrl.BlockSize

// long is more than can be read before its first frame is acknowledged, one frame at a time.
const long = 5 << 19

// TestABrokenCutTurnsIntoARound breaks the cut at frames of one disk, before any of another. The replica forgets what no
// finished shipment brought, so that a mark which such a frame took away would be missed.
func TestABrokenCutTurnsIntoARound(t *testing.T) {
	for _, at := range []uint64{1, 2, 3, 4, 0} {
		t.Run(fmt.Sprintf("frame %d", at), func(t *testing.T) {
			m := newMachine(t, 4*hrl.BlockSize, 1<<20, 4<<20+512)
			m.replica.credit = 1
			dirty := func() {
				m.write(0, 100, area-hrl.BlockSize)
				m.write(1, 4<<20+512-long, long)
			}
			dirty()
			cut, rounds, before := replication.NewID(), 0, int64(0)
			broken := make(chan struct{})
			m.replica.way = func(open ship.Open, sequence uint64) deed {
				switch {
				case open.Shipment != cut && sequence == 0 && open.Disk == "b" && rounds < 3:
					rounds++
					dirty()
				case open.Shipment == cut && open.Disk == "b" && sequence == 1:
					<-broken
				case open.Shipment == cut && open.Disk == "a" && sequence == at && before == 0:
					before = m.replica.sent()
					m.write(1, 4<<20-6*hrl.BlockSize, 6*hrl.BlockSize)
					close(broken)
				}
				return deliver
			}
			outcome, err := ship.CatchUp(t.Context(), m.replica, m.options(cut))
			must(t, err)
			m.replica.commit(cut, outcome)
			must(t, outcome.Epoch.Ack())
			m.equal()
			if outcome.Rounds != 6 { // three, the cut that broke, what was left of it, and the cut
				t.Errorf("%d rounds", outcome.Rounds)
			}
			if most := int64(area + long + 7*hrl.BlockSize); m.replica.sent()-before > most {
				t.Errorf("%d bytes were sent since the cut, of %d", m.replica.sent()-before, most)
			}
		})
	}
}

// TestAStreamThatEndsAnywhereGivesEveryMarkBack ends the connection before and after each message of rounds and cuts.
func TestAStreamThatEndsAnywhereGivesEveryMarkBack(t *testing.T) {
	for _, budget := range []int64{ample, 0} {
		m := newMachine(t, budget, 1<<20, 1<<20+512)
		broken := 0
		for _, disk := range []string{"a", "b"} {
			for _, what := range []deed{cutOff, cutAfter} {
				for at := range uint64(5) {
					m.write(0, 100, area-hrl.BlockSize)
					m.write(1, 1<<20+512-area, area)
					var once atomic.Bool
					m.replica.way = func(open ship.Open, sequence uint64) deed {
						if open.Disk == disk && sequence == at && once.CompareAndSwap(false, true) {
							return what
						}
						return deliver
					}
					before := m.group.Figures()
					_, err := m.try(t.Context())
					if !once.Load() || !failure.Retryable(err) || failure.Find(err).Disk != disk {
						t.Fatalf("disk %s, frame %d: %v", disk, at, err)
					}
					if after := m.group.Figures(); after.Live < before.Live || after.Pending+after.Sent+after.Kept != 0 {
						t.Fatalf("disk %s, frame %d: from %+v to %+v", disk, at, before, after)
					}
					m.cycle()
					m.equal()
					broken++
				}
			}
		}
		if broken != 20 {
			t.Fatalf("%d streams ended", broken)
		}
	}
}

// TestMarksThatGoEarlyAreNoticed leaves the rule out: a range counts as sent once it is on its way, and stays so though its
// shipment ends early. The tests above would not be worth much if the replica came out right.
func TestMarksThatGoEarlyAreNoticed(t *testing.T) {
	m := newMachine(t, ample, 1<<20)
	m.write(0, 100, area-hrl.BlockSize)
	round, err := m.group.Round(t.Context())
	must(t, err)
	m.replica.way = func(_ ship.Open, sequence uint64) deed { return map[bool]deed{true: cutOff}[sequence == 2] }
	careless := func() error {
		stream, _, err := m.replica.Ship(t.Context(), ship.Open{Disk: "a", Session: 1, Shipment: round.ID})
		must(t, err)
		defer stream.Close()
		geometry, err := blockdiff.NewGeometry(1 << 20)
		must(t, err)
		builder, content := blockdiff.NewBuilder(geometry, 1), make([]byte, hrl.BlockSize)
		for extent, err := range round.Extents(0) {
			must(t, err)
			for off := extent.Offset; off < extent.Offset+extent.Length; off += hrl.BlockSize {
				must(t, round.ReadAt(0, content, off))
				must(t, round.Sent(0, off, hrl.BlockSize)) // before the acknowledgement
				must(t, builder.AddData(off, content))
			}
		}
		frame, err := blockdiff.NewEncoder().Encode(geometry, builder.Take())
		must(t, err)
		return errors.Join(stream.Send(frameOf(1, frame)), stream.Send(frameOf(2, frame)), received(stream))
	}
	if err := careless(); !errors.Is(err, errCutOff) {
		t.Fatalf("got %v", err)
	}
	must(t, round.End()) // in place of Abort
	m.replica.way = nil
	m.cycle()
	if m.difference() == "" {
		t.Fatal("the mutant lost nothing")
	}
}

// TestWhatIsNotWhatWasSentIsRefused changes frames on their way: the root tells.
func TestWhatIsNotWhatWasSentIsRefused(t *testing.T) {
	for name, what := range map[string]deed{"lost": lose, "in another order": turn, "changed": corrupt} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, ample, 1<<20)
			for at := uint64(1); at < 4; at++ {
				m.write(0, 100, area-hrl.BlockSize)
				m.replica.way = func(_ ship.Open, sequence uint64) deed { return map[bool]deed{true: what}[sequence == at] }
				_, err := m.try(t.Context())
				reasonIs(t, err, failure.ReasonProofFailed)
				if f := m.group.Figures(); f.Live < area || f.Pending+f.Sent != 0 {
					t.Fatalf("%+v", f)
				}
				m.replica.way = nil
				m.cycle()
				m.equal()
			}
		})
	}
}

func TestAnswersThatNoReplicaGivesAreRefused(t *testing.T) {
	cases := map[string]struct {
		at     uint64
		say    ship.Response
		reason string
	}{
		"an end before the end":         {2, ship.Finished{}, failure.ReasonProtocol},
		"a frame that was never sent":   {1, ship.Acknowledgement{FrameSequence: 99}, failure.ReasonProtocol},
		"an acknowledgement taken back": {4, ship.Acknowledgement{FrameSequence: 1}, failure.ReasonProtocol},
		"another root":                  {0, ship.Finished{Root: blockdiff.Hash{1}}, failure.ReasonProofFailed},
		"another conversation's":        {2, 7, failure.ReasonProtocol},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, ample, 1<<20)
			m.write(0, 0, area)
			m.replica.more = func(_ ship.Open, sequence uint64) ship.Response {
				return map[bool]ship.Response{true: test.say}[sequence == test.at]
			}
			_, err := m.try(t.Context())
			reasonIs(t, err, test.reason)
			if f := m.group.Figures(); f.Live != area || f.Pending+f.Sent != 0 {
				t.Fatalf("%+v", f)
			}
			m.replica.more = nil
			m.cycle()
			m.equal()
		})
	}
}

func TestACancelledShipmentGivesEveryMarkBack(t *testing.T) {
	for _, budget := range []int64{ample, 0} {
		m := newMachine(t, budget, 1<<20, 1<<20)
		m.write(0, 0, area)
		ctx, cancel := context.WithCancel(t.Context())
		m.replica.way = func(_ ship.Open, sequence uint64) deed {
			if sequence == 3 {
				cancel()
			}
			return deliver
		}
		if _, err := m.try(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		if f := m.group.Figures(); f.Live != area || f.Pending+f.Sent != 0 {
			t.Fatalf("%+v", f)
		}
		m.replica.way = nil
		m.cycle()
		m.equal()
	}
}

// TestARoundThatCannotBeginGivesBackTheOnesBefore: the transfer that they were sent into may not live on.
func TestARoundThatCannotBeginGivesBackTheOnesBefore(t *testing.T) {
	m := newMachine(t, 0, 1<<20)
	m.write(0, 0, area)
	ctx, cancel := context.WithCancel(t.Context())
	held := m.images[0].hold()
	m.replica.way = func(_ ship.Open, sequence uint64) deed {
		if sequence == 0 { // a write that is under way when the next round begins, which waits for it
			go func() { _, _ = m.disks[0].WriteAt([]byte{1}, 0) }()
			<-held.entered
			go func() {
				for m.group.Figures().Pending == 0 {
				}
				cancel()
			}()
		}
		return deliver
	}
	_, err := m.try(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if f := m.group.Figures(); f.Live != area || f.Pending+f.Sent != 0 {
		t.Fatalf("%+v", f)
	}
	close(held.release)
	m.replica.way = nil
	m.cycle()
	m.equal()
}

func TestSomebodyElsesEpochIsLeftAlone(t *testing.T) {
	m := newMachine(t, ample, 1<<20)
	m.write(0, 0, area)
	other, err := m.group.Round(t.Context())
	must(t, err)
	if _, err := m.try(t.Context()); !errors.Is(err, tracking.ErrEpochOpen) || len(m.replica.opens) != 0 {
		t.Fatalf("got %v after %d streams", err, len(m.replica.opens))
	}
	if f := m.group.Figures(); f.Pending != area {
		t.Fatalf("%+v", f)
	}
	must(t, other.End())
	m.cycle()
	m.equal()
}

func TestALossWhileItShipsIsTold(t *testing.T) {
	m := newMachine(t, ample, 1<<20, 1<<20)
	m.write(0, 0, area)
	m.replica.way = func(open ship.Open, sequence uint64) deed {
		if open.Disk == "a" && sequence == 2 {
			m.images[1].writes.Store(true)
			_, _ = m.disks[1].WriteAt([]byte{1}, 0)
		}
		return deliver
	}
	_, err := m.try(t.Context())
	reasonIs(t, err, failure.ReasonTrackingLost)
	if f := m.group.Figures(); f.Live < area || f.Pending+f.Sent != 0 {
		t.Fatalf("%+v", f)
	}
}

func TestAnImageThatCannotBeReadIsTold(t *testing.T) {
	m := newMachine(t, ample, 4<<20)
	m.write(0, 0, 3<<20)
	m.replica.credit = 1
	m.replica.way = func(ship.Open, uint64) deed { m.images[0].reads.Store(true); return deliver }
	_, err := ship.CatchUp(t.Context(), m.replica, m.options(replication.NewID()))
	reasonIs(t, err, failure.ReasonImageUnreadable)
	if shipment := m.replica.disks["a"].shipment; shipment != "" {
		t.Errorf("a part of the disk was finished as %s", shipment)
	}
	m.replica.discard()
	m.images[0].reads.Store(false)
	m.replica.way = nil
	m.cycle()
	m.equal()
}
