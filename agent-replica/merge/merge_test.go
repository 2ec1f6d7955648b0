package merge

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"vmreplica/agent-replica/chain"
	"vmreplica/internal/disk"
	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// waiting is a world in which a committed layer waits.
func waiting(t *testing.T, r *durabletest.Recorder) (*world, models) {
	t.Helper()
	rng := rand.New(rand.NewPCG(3, 7))
	w := openWorld(r, kind{events: true})
	now, err := w.adopt(rng)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.vm().Acquire(); err != nil {
		t.Fatal(err)
	}
	next, err := w.receive(rng, 1, replication.KindResync, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.commit(1, next); err != nil {
		t.Fatal(err)
	}
	if err := w.vm().Release(); err != nil {
		t.Fatal(err)
	}
	return w, next
}

// count is how many events of each type there are.
func (w *world) count(t *testing.T) map[string]int {
	t.Helper()
	events, err := w.events.List(testVM, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, e := range events {
		counts[e.Type]++
	}
	return counts
}

func (w *world) layersToMerge(t *testing.T) int {
	t.Helper()
	record, err := w.vm().Record()
	if err != nil {
		t.Fatal(err)
	}
	return record.LayersToMerge()
}

func wantContent(t *testing.T, w *world, want models) {
	t.Helper()
	content, err := w.view()
	if err != nil {
		t.Fatal(err)
	}
	if wrong := differs(content, []models{want}); wrong != "" {
		t.Error(wrong)
	}
}

func TestRunMergesWhatCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := durabletest.New()
		w, want := waiting(t, r)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- w.merger.Run(ctx) }()
		synctest.Wait()
		if n := w.layersToMerge(t); n != 0 {
			t.Errorf("%d layers wait after the start", n)
		}
		wantContent(t, w, want)
		if err := w.vm().Acquire(); err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(4, 8))
		next, err := w.receive(rng, 2, replication.KindResync, want)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.commit(2, next); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := w.layersToMerge(t); n != 0 {
			t.Errorf("%d layers wait after a commit", n)
		}
		if err := w.vm().Release(); err != nil {
			t.Fatal(err)
		}
		wantContent(t, w, next)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		counts := w.count(t)
		if n := counts[event.TypeMergeFinished]; n == 0 || counts[event.TypeMergeStarted] != n ||
			counts[event.TypeResyncCommitted] != 2 || counts[event.TypeOperationFailed] != 0 {
			t.Errorf("events %v", counts)
		}
	})
}

func TestAFullStorageIsWaitedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := durabletest.New()
		w, want := waiting(t, r)
		r.SetCapacity(0)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- w.merger.Run(ctx) }()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		status := w.merger.Status(testVM)
		if status.Problem == nil || status.Problem.Reason != failure.ReasonStorageFull || status.Final {
			t.Errorf("while the storage is full: %+v", status)
		}
		if n := w.count(t)[event.TypeOperationFailed]; n != 1 {
			t.Errorf("%d events say that the merge waits", n)
		}
		wantContent(t, w, want)
		r.SetCapacity(-1)
		time.Sleep(2 * longestWait)
		synctest.Wait()
		if n := w.layersToMerge(t); n != 0 || w.merger.Status(testVM).Problem != nil {
			t.Errorf("with room again %d layers wait, %+v", n, w.merger.Status(testVM))
		}
		wantContent(t, w, want)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// failingStorage opens bases that cannot be synced.
type failingStorage struct {
	chain.Storage
	flushes atomic.Int64
}

func (s *failingStorage) OpenBase(b chain.Base, sectorSize int) (disk.Disk, error) {
	base, err := s.Storage.OpenBase(b, sectorSize)
	return failingBase{base, s}, err
}

type failingBase struct {
	disk.Disk
	storage *failingStorage
}

func (b failingBase) Flush() error {
	b.storage.flushes.Add(1)
	return syscall.EIO
}

func TestAFailedSyncIsFinalUntilARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := durabletest.New()
		_, want := waiting(t, r)
		failing := &failingStorage{}
		w := openWorld(r, kind{storage: func(s chain.Storage) chain.Storage {
			failing.Storage = s
			return failing
		}})
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- w.merger.Run(ctx) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		status := w.merger.Status(testVM)
		if !status.Final || status.Problem.Reason != failure.ReasonStorageFailed {
			t.Errorf("after a failed sync: %+v", status)
		}
		if n := failing.flushes.Load(); n != 1 {
			t.Errorf("the base was synced %d times", n)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		wantContent(t, w, want)
		again := openWorld(r, kind{})
		if err := again.recover(); err != nil {
			t.Fatal(err)
		}
		wantContent(t, again, want)
	})
}

func TestNextIsTheOldestWorkFirst(t *testing.T) {
	layer := func(s chain.LayerState) chain.Layer { return chain.Layer{File: "l", State: s} }
	onPoint := chain.Layer{File: "p", State: chain.Committed, Point: &chain.Point{ID: "1"}}
	for name, c := range map[string]struct {
		record chain.Record
		want   Step
	}{
		"nothing":         {chain.Record{Disks: []chain.Disk{{ID: "a"}}}, Step{}},
		"only receiving":  {chain.Record{Disks: []chain.Disk{{ID: "a", Layers: []chain.Layer{layer(chain.Receiving)}}}}, Step{}},
		"garbage first":   {chain.Record{Garbage: []string{"x"}, Disks: []chain.Disk{{ID: "a", Layers: []chain.Layer{layer(chain.Merging)}}}}, Step{Clean: true}},
		"an ended record": {chain.Record{Releasing: true}, Step{Clean: true}},
		"the second disk": {chain.Record{Disks: []chain.Disk{{ID: "a"}, {ID: "b", Layers: []chain.Layer{layer(chain.Committed)}}}}, Step{Disk: "b", Layer: "l"}},
		"an unmade point": {chain.Record{Creating: []string{"x"}}, Step{Clean: true}},
		"a point's layer": {chain.Record{Disks: []chain.Disk{{ID: "a", Layers: []chain.Layer{onPoint}}}}, Step{}},
		"into a point's": {chain.Record{Disks: []chain.Disk{{ID: "a", Layers: []chain.Layer{onPoint, layer(chain.Committed)}}}},
			Step{Disk: "a", Layer: "l"}},
		"what has begun": {chain.Record{Disks: []chain.Disk{{ID: "a", Layers: []chain.Layer{
			{File: "k", State: chain.Committed}, layer(chain.Merging)}}}}, Step{Disk: "a", Layer: "l"}},
	} {
		vm := chain.NewRegistry(nil, nil).VM(testVM)
		if got, held := Next(c.record, vm); got != c.want || held {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
