package merge

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"vmreplica/agent-replica/chain"
	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/replication"
	"vmreplica/internal/state"
)

// promised is what may be found after a crash from here on: one of some views, these points at least, and of every point
// that is found the content of its cut.
type promised struct {
	views allowed
	kept  []replication.ID
	cuts  map[replication.ID]models
}

// life is a VM with points on a host in memory: what it is told to do, and what a crash must leave of it.
type life struct {
	*world
	r        *durabletest.Recorder
	rng      *rand.Rand
	now      models
	kept     []replication.ID
	cuts     map[replication.ID]models
	transfer int
}

func (l *life) mark(views ...models) {
	l.r.Mark(promised{views: views, kept: slices.Clone(l.kept), cuts: l.cuts})
}

// commit receives and commits; the disks may be held open meanwhile.
func (l *life) commit(kind replication.ResyncKind) error {
	l.transfer++
	if err := l.vm().Acquire(); err != nil {
		return err
	}
	next, err := l.receive(l.rng, l.transfer, kind, l.now)
	if err != nil {
		return err
	}
	l.cuts[cutOf(l.transfer)] = next
	if kind == replication.KindResync {
		l.kept = nil
	}
	l.mark(l.now, next)
	if err := l.world.commit(l.transfer, next); err != nil {
		return err
	}
	l.now = next
	l.mark(l.now)
	return l.vm().ReleaseTransfer()
}

func (l *life) seal() error {
	if err := l.vm().Acquire(); err != nil {
		return err
	}
	if _, err := l.vm().SealPoint(time.Unix(1000, 0)); err != nil {
		return err
	}
	l.kept = append(l.kept, cutOf(l.transfer))
	l.mark(l.now)
	return l.vm().Release()
}

func (l *life) drop() error {
	oldest := l.kept[0]
	l.kept = l.kept[1:]
	l.mark(l.now)
	_, err := l.vm().DropPoint(oldest)
	return err
}

func (l *life) delta() error  { return l.commit(replication.KindDelta) }
func (l *life) resync() error { return l.commit(replication.KindResync) }

// newLife is a VM that keeps that many points.
func newLife(r *durabletest.Recorder, k kind, seed uint64, points int) (*life, error) {
	return begin(openWorld(r, k), r, seed, points)
}

// begin is the life of the VM of a world, marked in r.
func begin(w *world, r *durabletest.Recorder, seed uint64, points int) (*life, error) {
	l := &life{world: w, r: r, rng: rand.New(rand.NewPCG(seed, 6)), cuts: map[replication.ID]models{}}
	var err error
	if l.now, err = l.adopt(l.rng); err != nil {
		return nil, err
	}
	_, err = l.vm().Update(func(r *chain.Record) error {
		r.Lineage, r.Cut = cutOf(0), cutOf(0) // as if it had committed before
		return r.SetPolicy(points)
	})
	l.mark(l.now)
	return l, err
}

// pointHistory seals on what waits and on what is merged, merges into layers, drops, and ends with a resync.
func pointHistory(r *durabletest.Recorder, k kind, seed uint64) (from int, err error) {
	l, err := newLife(r, k, seed, 2)
	if err != nil {
		return 0, err
	}
	from = r.Ops()
	r.Drop(k.drop)
	for i, step := range []func() error{
		l.delta, l.seal, l.delta, l.recover, l.delta, l.seal, l.recover, l.delta, l.recover,
		l.drop, l.seal, l.delta, l.recover, l.resync, l.recover,
	} {
		if err := step(); err != nil {
			return from, fmt.Errorf("step %d: %w", i, err)
		}
	}
	return from, nil
}

// pointContent is every disk as a point has it.
func (w *world) pointContent(text string) (content models, err error) {
	pin, err := w.vm().Pin(text, "a test")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pin.Release()) }()
	return pinContent(pin)
}

func pinContent(pin *chain.Pin) (models, error) {
	content := models{}
	for _, id := range diskIDs {
		reader, err := pin.Disk(id)
		if err != nil {
			return nil, err
		}
		content[id] = make([]byte, reader.Size())
		if _, err := reader.ReadAt(content[id], 0); err != nil && err != io.EOF {
			return nil, err
		}
	}
	return content, nil
}

// undoubted says that what this agent itself left is not taken for another program's.
func (w *world) undoubted() error {
	doubts, err := w.vm().Doubts()
	if all := strings.Join(doubts, ""); err == nil && all != "" {
		err = errors.New(all)
	}
	return err
}

// checkPoints compares every point that the record keeps with what its cut was.
func (w *world) checkPoints(wanted promised) error {
	if err := w.undoubted(); err != nil {
		return err
	}
	record, err := w.vm().Record()
	if err != nil {
		return err
	}
	kept := map[replication.ID]bool{}
	for _, point := range record.Points() {
		kept[point.ID] = true
		content, err := w.pointContent(string(point.ID))
		if err != nil {
			return err
		}
		if wrong := differs(content, []models{wanted.cuts[point.ID]}); wrong != "" {
			return fmt.Errorf("point %.8s: %s", point.ID, wrong)
		}
	}
	for _, id := range wanted.kept {
		if !kept[id] {
			return fmt.Errorf("point %.8s is gone", id)
		}
	}
	if record.Lineage == "" {
		return nil
	}
	newest, err := w.pointContent("")
	if err != nil {
		return err
	}
	if wrong := differs(newest, wanted.views); wrong != "" {
		return fmt.Errorf("the newest content: %s", wrong)
	}
	return nil
}

// checkPointCrash restarts on what a crash left and says what is wrong with it.
func checkPointCrash(c *durabletest.Crash, k kind) error {
	wanted := c.Marks()[len(c.Marks())-1].(promised)
	w := openWorld(c.Recorder, kind{plain: k.plain, size: k.size})
	for _, step := range []struct {
		when string
		do   func() error
	}{{"before recovery", func() error { return nil }}, {"abort", w.abortOpen}, {"recover", w.recover}} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.when, err)
		}
		if err := w.checkPoints(wanted); err != nil {
			return fmt.Errorf("%s: %w", step.when, err)
		}
	}
	after, err := w.view()
	if err != nil {
		return fmt.Errorf("after recovery: %w", err)
	}
	if wrong := differs(after, wanted.views); wrong != "" {
		return fmt.Errorf("after recovery: %s", wrong)
	}
	record, err := w.vm().Record()
	if err != nil {
		return err
	}
	return errors.Join(w.checkSettled(record), w.checkRepeat(record, after))
}

func tryPointCrashes(k kind, seed uint64, options durabletest.Options) (states int, wrong error) {
	r := durabletest.New()
	from, err := pointHistory(r, k, seed)
	if err != nil {
		return 0, fmt.Errorf("without a crash: %w", err)
	}
	options.Seed, options.From = seed, from
	for c := range r.Crashes(options) {
		states++
		if err := checkPointCrash(c, k); err != nil {
			return states, fmt.Errorf("seed %d, %s:\n%w", seed, c, err)
		}
	}
	return states, nil
}

// TestEveryCrashKeepsThePoints loses power everywhere in a life with points, with the fewest bytes and with every format.
func TestEveryCrashKeepsThePoints(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine, long")
	}
	for name, c := range map[string]struct {
		kind    kind
		options durabletest.Options
	}{
		"plain": {kind{plain: true}, durabletest.Options{Random: 1, Singles: 2}},
		"qcow2": {kind{base: "qcow2", size: 1 << 20}, durabletest.Options{Random: 1, Singles: 1, Every: 17}},
		"vhdx":  {kind{base: "vhdx", size: 2 << 20}, durabletest.Options{Random: 1, Singles: 1, Every: 53}},
		"vhd":   {kind{base: "vhd", size: 2 << 20}, durabletest.Options{Random: 1, Singles: 1, Every: 29}},
	} {
		t.Run(name, func(t *testing.T) {
			states, err := tryPointCrashes(c.kind, 1, c.options)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d states", states)
		})
	}
}

// TestEveryFaultKeepsThePoints lets every operation in turn fail and restarts after it, with or without a loss of power.
func TestEveryFaultKeepsThePoints(t *testing.T) {
	step := 2
	if testing.Short() {
		step = 11
	}
	for _, fault := range []error{syscall.EIO, syscall.ENOSPC} {
		for k := 1; ; k += step {
			r := durabletest.New()
			r.FailAt(k, fault)
			_, err := pointHistory(r, kind{plain: true}, 1)
			if !r.Faulted() {
				check(t, err)
				break
			}
			r.FailAt(0, nil)
			for c := range r.Crashes(durabletest.Options{From: r.Ops(), Random: 1, Singles: 1}) {
				if len(c.Marks()) == 0 {
					continue // nothing was promised yet
				}
				if err := checkPointCrash(c, kind{plain: true}); err != nil {
					t.Fatalf("operation %d answered %v; %s:\n%v", k, fault, c, err)
				}
			}
		}
	}
}

// TestMutantsOfPointsAreCaught breaks one rule at a time; each must show in some crash of some history, or without one.
func TestMutantsOfPointsAreCaught(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine, long")
	}
	for name, mutant := range map[string]kind{
		"a point's layers are never synced":       {drop: durabletest.SyncOf("*.qcow2")},
		"the directory is never synced":           {drop: durabletest.SyncDirOf("web01")},
		"a layer is deleted before it is merged":  {store: deleteMerging},
		"a mark is dropped early":                 {store: dropEarly},
		"the record says so before the layer is":  {storage: func(s chain.Storage) chain.Storage { return lateLayers{s} }},
		"files go before the record says so":      {store: deleteEarly},
		"zeros of a merged layer are left absent": {storage: func(s chain.Storage) chain.Storage { return holey{s} }},
	} {
		t.Run(name, func(t *testing.T) {
			mutant.plain = true
			for seed := uint64(1); seed <= 3; seed++ {
				if states, err := tryPointCrashes(mutant, seed, durabletest.Options{}); err != nil {
					t.Logf("caught at state %d: %.300v", states, err)
					return
				}
			}
			t.Error("nothing was noticed")
		})
	}
}

// deleteMerging deletes a layer's file when its merge begins.
func deleteMerging(store state.Store, dir durable.Dir) state.Store {
	return changedStore{store, func(record *chain.Record) error {
		for _, d := range record.Disks {
			for _, layer := range d.Layers {
				if layer.State == chain.Merging {
					return ignoreMissing(dir.Remove(layer.File))
				}
			}
		}
		return nil
	}}
}

// dropEarly takes the mark of the oldest point away as soon as there are two.
func dropEarly(store state.Store, _ durable.Dir) state.Store {
	return changedStore{store, func(record *chain.Record) error {
		if points := record.Points(); len(points) == 2 {
			return record.DropPoint(points[0].ID)
		}
		return nil
	}}
}

func ignoreMissing(err error) error {
	if err != nil && strings.Contains(err.Error(), "not exist") {
		return nil
	}
	return err
}

// changedStore changes every record that is written.
type changedStore struct {
	state.Store
	change func(*chain.Record) error
}

func (s changedStore) Update(fn func(state.Tx) error) error {
	return s.Store.Update(func(tx state.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		rows := state.Table[chain.Record]{Bucket: "replicas"}
		record, found, err := rows.Get(tx, testVM)
		if err != nil || !found {
			return err
		}
		if err := s.change(&record); err != nil {
			return err
		}
		return rows.Put(tx, testVM, record)
	})
}

// lateLayers flush only when they are closed.
type lateLayers struct{ chain.Storage }

func (s lateLayers) CreateLayer(l chain.Layer, size int64, sector int) (disk.Layer, error) {
	layer, err := s.Storage.CreateLayer(l, size, sector)
	return lateLayer{layer}, err
}

func (s lateLayers) OpenLayer(l chain.Layer) (disk.Layer, error) {
	layer, err := s.Storage.OpenLayer(l)
	return lateLayer{layer}, err
}

type lateLayer struct{ disk.Layer }

func (lateLayer) Flush() error           { return nil }
func (lateLayer) Seal(disk.Parent) error { return nil }
func (l lateLayer) Close() error         { return errors.Join(l.Layer.Flush(), l.Layer.Close()) }

// holey layers that are opened again take no zeros: what they do not hold shows through.
type holey struct{ chain.Storage }

func (s holey) OpenLayer(l chain.Layer) (disk.Layer, error) {
	layer, err := s.Storage.OpenLayer(l)
	return holeyLayer{layer}, err
}

type holeyLayer struct{ disk.Layer }

func (holeyLayer) Zero(_, _ int64) error  { return nil }
func (holeyLayer) Unmap(_, _ int64) error { return nil }
