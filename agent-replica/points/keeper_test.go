package points

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/merge"
	"vmreplica/agent-replica/storage"
	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/replication"
	"vmreplica/internal/state/statetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a replica of one VM, with a keeper and a merger that run.
type world struct {
	t        *testing.T
	recorder *durabletest.Recorder
	vm       *chain.VM
	logged   *strings.Builder
	cut      int
}

// within runs a test in virtual time, over a replica that keeps that many points.
func within(t *testing.T, points int, test func(*world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, recorder: durabletest.New(), logged: &strings.Builder{}}
		dir := w.recorder.Dir()
		files := storage.New(dir, nil)
		registry := chain.NewRegistry(chain.NewTable(statetest.New(w.recorder), nil), files)
		w.vm = registry.VM("web01")
		prepare := chain.Prepare{VM: "web01", UID: id("0"), Primary: "p", Directory: "p/web01", Term: 1, UseExisting: true}
		for _, name := range []string{"root", "data"} {
			w.check(files.CreateBase(chain.Base{File: path.Join("p/web01", name)}, 64<<10, 512, false))
			prepare.Disks = append(prepare.Disks, chain.PrepareDisk{
				Geometry: chain.Geometry{ID: name, SizeBytes: 64 << 10, LogicalSectorSize: 512},
			})
		}
		_, err := registry.Prepare(prepare)
		w.check(err)
		w.keep(points)
		ctx, cancel := context.WithCancel(context.Background())
		log := slog.New(slog.NewTextHandler(w.logged, nil))
		merger := merge.New(merge.Config{Registry: registry, Space: files, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		keeper := New(Config{Registry: registry, Log: log})
		var running sync.WaitGroup
		running.Go(func() { w.check(merger.Run(ctx)) })
		running.Go(func() { w.check(keeper.Run(ctx)) })
		test(w)
		cancel()
		running.Wait()
	})
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Error(err)
	}
}

func (w *world) update(change func(*chain.Record)) {
	w.t.Helper()
	_, err := w.vm.Update(func(r *chain.Record) error {
		change(r)
		return nil
	})
	w.check(err)
}

func (w *world) keep(points int) { w.update(func(r *chain.Record) { r.RecoveryPoints = points }) }

// commit is a cycle that changed nothing but the cut.
func (w *world) commit() {
	w.cut++
	w.update(func(r *chain.Record) {
		r.Lineage, r.Cut, r.CutTime = id("1"), replication.ID(fmt.Sprintf("%032x", w.cut)), time.Now()
	})
	synctest.Wait()
}

// pass lets time go by, with a commit every five minutes.
func (w *world) pass(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(5 * time.Minute)
		w.commit()
	}
}

// points are how long ago the points are, in minutes, oldest first.
func (w *world) points() (minutes []int) {
	w.t.Helper()
	synctest.Wait()
	record, err := w.vm.Record()
	w.check(err)
	for _, point := range record.Points() {
		minutes = append(minutes, int(time.Since(point.Time).Minutes()))
	}
	return minutes
}

func (w *world) want(when string, minutes ...int) {
	w.t.Helper()
	got := w.points()
	same := len(got) == len(minutes)
	for i := range got {
		same = same && got[i] == minutes[i]
	}
	if !same {
		w.t.Errorf("%s: points of %v minutes ago, want %v", when, got, minutes)
	}
	record, err := w.vm.Record()
	w.check(err)
	for _, d := range record.Disks {
		if len(d.Layers) != len(minutes) {
			w.t.Errorf("%s: %d layers on %s", when, len(d.Layers), d.ID)
		}
	}
}

func TestAPointIsSealedEveryHour(t *testing.T) {
	within(t, 3, func(w *world) {
		w.want("before the first commit")
		w.commit()
		w.want("after the first commit", 0)
		time.Sleep(time.Minute)
		w.pass(55 * time.Minute)
		w.want("before the hour", 56)
		w.pass(10 * time.Minute)
		w.want("after the hour", 66, 10)
		w.pass(4 * time.Hour)
		w.want("after some hours", 130, 70, 10)
		time.Sleep(6 * time.Hour)
		w.want("without any commit", 430, 370, 360)
	})
}

// The last commit before the primary fell silent is worth a point of its own, an hour after the one before.
func TestTheTimerSealsWithoutAChange(t *testing.T) {
	within(t, 3, func(w *world) {
		w.commit()
		w.pass(10 * time.Minute)
		time.Sleep(51 * time.Minute)
		w.want("an hour later", 61, 51)
	})
}

func TestALoweredNumberIsGivenUpAtOnce(t *testing.T) {
	within(t, 3, func(w *world) {
		w.commit()
		w.pass(3 * time.Hour)
		before := w.points()
		w.keep(1)
		w.want("one kept", before[2])
		w.keep(0)
		w.want("none kept")
	})
}

func TestATransferIsNotDisturbed(t *testing.T) {
	within(t, 1, func(w *world) {
		w.commit()
		open := &chain.Transfer{ID: id("7"), Kind: replication.KindVerify}
		w.update(func(r *chain.Record) { r.Transfer = open })
		w.pass(2 * time.Hour)
		w.want("while it is open", 120)
		w.keep(0)
		w.want("and nothing is given up", 120)
		w.keep(1)
		w.update(func(r *chain.Record) { r.Transfer = nil })
		w.want("at its end", 0)
	})
}

// While the oldest point is read none takes its place; the reader's end is enough for both.
func TestAReaderPutsOffTheNextPoint(t *testing.T) {
	within(t, 1, func(w *world) {
		w.commit()
		record, err := w.vm.Record()
		w.check(err)
		pin, err := w.vm.Pin(string(record.Cut), "a test")
		if err != nil {
			t.Fatal(err)
		}
		w.pass(2 * time.Hour)
		w.want("while it is read", 120)
		w.check(pin.Release())
		w.want("when the reader has gone", 0)
	})
}

// A storage without room is tried again, said once, and leaves nothing behind.
func TestAFullStorageIsTriedAgain(t *testing.T) {
	within(t, 1, func(w *world) {
		w.recorder.SetCapacity(0)
		w.commit()
		time.Sleep(10 * retryInterval)
		w.want("without room")
		if n := strings.Count(w.logged.String(), "level=WARN"); n != 1 {
			t.Errorf("%d warnings:\n%s", n, w.logged)
		}
		w.recorder.SetCapacity(-1)
		time.Sleep(2 * retryInterval)
		w.want("with room again", 12)
		record, err := w.vm.Record()
		if err := errors.Join(err); err != nil || len(record.Creating)+len(record.Garbage) > 0 {
			t.Errorf("left: %v %v %v", record.Creating, record.Garbage, err)
		}
	})
}
