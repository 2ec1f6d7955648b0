package pair_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"vmreplica/agent-replica/chain"
	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/replication"
)

// firstCut is what a replica that was adopted holds before its deltas.
const firstCut = replication.ID("22222222222222222222222222222222")

// life is a running machine and its replica, of which every operation on the storage is recorded.
type life struct {
	t        *testing.T
	recorder *durabletest.Recorder
	host     *host
	live     *live
	image    []byte
	// contents are the machine's by the cuts that were answered, which cuts has in order; the first is what there was before.
	contents map[replication.ID][]byte
	cuts     []replication.ID
	from     int
	changed  int
}

// newLife is a machine whose replica holds the same, or nothing; mutants are operations that do not happen.
func newLife(t *testing.T, adopted bool, mutants []func(durabletest.Op) bool) *life {
	l := &life{t: t, recorder: durabletest.New(), image: random(1, 2*mib), contents: map[replication.ID][]byte{}}
	path := filepath.Join(t.TempDir(), diskID)
	writeSparse(t, path, l.image)
	l.host = newHost(t, l.recorder)
	var base []byte
	if adopted {
		base = l.image
	}
	must(t, l.host.prepare(base, int64(len(l.image))))
	l.live = attach(t, path, l.host.link, mib)
	l.live.begin()
	if adopted {
		_, err := l.host.registry.VM(vmName).Update(func(r *chain.Record) error {
			r.Lineage, r.Cut = firstCut, firstCut
			return nil
		})
		must(t, err)
		l.live.lineage, l.live.cut = firstCut, firstCut
	}
	l.from = l.recorder.Ops()
	l.answered()
	for _, mutant := range mutants {
		l.recorder.Drop(mutant)
	}
	return l
}

// answered notes that the machine's content is what the replica has answered for.
func (l *life) answered() {
	l.contents[l.live.cut] = bytes.Clone(l.image)
	l.cuts = append(l.cuts, l.live.cut)
	l.recorder.Mark(l.live.cut)
}

// change has the machine write scattered blocks and trim a range.
func (l *life) change() {
	l.t.Helper()
	for i := range 40 {
		off := (i*13 + l.changed*5) % 500 * 4096
		content := random(uint64(100*l.changed+i+2), 4096)
		copy(l.image[off:], content)
		_, err := l.live.disk.WriteAt(content, int64(off))
		must(l.t, err)
	}
	at := l.changed % 4 * (64 << 10)
	must(l.t, l.live.disk.Trim(int64(at), 64<<10))
	clear(l.image[at:][:64<<10])
	l.changed++
}

// delta is a cycle and its merge.
func (l *life) delta() {
	l.change()
	l.live.delta()
	l.answered()
	must(l.t, l.host.settle())
}

// resync is one of a machine that writes meanwhile: what it changes after the beginning is compared or not, and shipped.
func (l *life) resync(kind replication.ResyncKind) {
	l.change()
	cut := l.live.begin()
	l.change()
	l.live.resync(kind, cut)
	l.answered()
	must(l.t, l.host.settle())
}

// deltas and resyncs are lives.
func deltas(t *testing.T, mutants ...func(durabletest.Op) bool) *life {
	l := newLife(t, true, mutants)
	for range 2 {
		l.delta()
	}
	return l
}

func resyncs(t *testing.T, mutants ...func(durabletest.Op) bool) *life {
	l := newLife(t, false, mutants)
	l.resync(replication.KindInitial)
	l.delta()
	l.resync(replication.KindResync)
	return l
}

// crashes records a life and looks at what a power loss may leave of the replica. It answers how many states were tried
// and the first thing that was wrong.
func (l *life) crashes() (tried int, err error) {
	l.host.close()
	every := max(1, 10*(l.recorder.Ops()-l.from)/(*crashStates))
	for crash := range l.recorder.Crashes(durabletest.Options{From: l.from, Every: every, Singles: 4, Random: 4}) {
		tried++
		if err := l.check(crash); err != nil {
			return tried, fmt.Errorf("%s: %w", crash, err)
		}
	}
	return tried, nil
}

// check says what a crash has left wrong: a view that is not that of the record's cut, or an older cut than was
// answered; then it brings the replica to the newest content.
func (l *life) check(crash *durabletest.Crash) error {
	h := newHost(l.t, crash.Recorder)
	defer h.close()
	held, record, err := h.view(false)
	if err != nil {
		return err
	}
	answered, ok := crash.Marks()[len(crash.Marks())-1].(replication.ID)
	if !ok || slices.Index(l.cuts, record.Cut) < slices.Index(l.cuts, answered) {
		return fmt.Errorf("cut %s was answered, the record has %s", answered, record.Cut)
	}
	kind := replication.KindResync
	if record.Cut == "" {
		kind = replication.KindInitial // what it holds is nothing yet, and it says so
	} else if !bytes.Equal(held, l.contents[record.Cut]) {
		return errors.New("the view is not the content of the record's cut")
	}
	if err := h.settle(); err != nil {
		return err
	}
	if record.Transfer != nil {
		if err := h.link.Abort(l.t.Context(), record.Transfer.ID); err != nil {
			return err
		}
	}
	if err := errors.Join(h.transfer(l.image, kind), h.settle()); err != nil {
		return err
	}
	held, record, err = h.view(false)
	if err == nil && (!bytes.Equal(held, l.image) || len(record.Garbage) > 0 || len(record.Files()) != 1) {
		err = fmt.Errorf("recovered, and the replica is another one, with %v and garbage %v", record.Files(), record.Garbage)
	}
	return err
}

func TestCrashInDeltas(t *testing.T) { wantNoLoss(t, deltas(t)) }

func TestCrashInResyncsOfARunningMachine(t *testing.T) { wantNoLoss(t, resyncs(t)) }

func wantNoLoss(t *testing.T, l *life) {
	t.Helper()
	tried, err := l.crashes()
	if err != nil {
		t.Fatal(err)
	}
	if t.Logf("%d states", tried); tried < *crashStates/4 {
		t.Fatalf("only %d states were tried", tried)
	}
}

// Each sync is needed: without it a crash leaves something wrong.
func TestCrashFindsMutantsOfShipments(t *testing.T) {
	for name, mutant := range map[string]struct {
		live func(*testing.T, ...func(durabletest.Op) bool) *life
		drop func(durabletest.Op) bool
	}{
		"the layer is not synced":              {deltas, durabletest.SyncOf("*.qcow2")},
		"the base is not synced in a merge":    {deltas, durabletest.SyncOf(diskID)},
		"the layer's directory is not synced":  {deltas, durabletest.SyncDirOf(vmName)},
		"the base is not synced in first copy": {resyncs, durabletest.SyncOf(diskID)},
	} {
		t.Run(name, func(t *testing.T) {
			if tried, err := mutant.live(t, mutant.drop).crashes(); err == nil {
				t.Fatalf("%d states show nothing", tried)
			}
		})
	}
}
