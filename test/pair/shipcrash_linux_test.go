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

// firstCut is what the replica of a crash holds before its deltas.
const firstCut = replication.ID("22222222222222222222222222222222")

// deltaCrashes records two deltas of a machine, each with its merge, and looks at what a power loss may leave of the
// replica. It answers how many states were tried and the first thing that was wrong.
func deltaCrashes(t *testing.T, mutant func(durabletest.Op) bool) (int, error) {
	image := random(1, 2*mib)
	path := filepath.Join(t.TempDir(), diskID)
	writeSparse(t, path, image)
	recorder := durabletest.New()
	h := newHost(t, recorder)
	must(t, h.prepare(image, int64(len(image))))
	_, err := h.registry.VM(vmName).Update(func(r *chain.Record) error {
		r.Lineage, r.Cut = firstCut, firstCut
		return nil
	})
	must(t, err)
	l := attach(t, path, h.link, mib)
	l.begin()
	l.lineage, l.cut = firstCut, firstCut
	contents := map[replication.ID][]byte{firstCut: bytes.Clone(image)}
	from := recorder.Ops()
	recorder.Mark(firstCut)
	if mutant != nil {
		recorder.Drop(mutant)
	}
	var cuts []replication.ID
	for delta := range 2 {
		for i := range 40 {
			off := (i*13 + delta*5) % 500 * 4096
			content := random(uint64(100*delta+i), 4096)
			copy(image[off:], content)
			_, err := l.disk.WriteAt(content, int64(off))
			must(t, err)
		}
		must(t, l.disk.Trim(int64(delta*64<<10), 64<<10))
		clear(image[delta*64<<10:][:64<<10])
		l.delta()
		contents[l.cut] = bytes.Clone(image)
		cuts = append(cuts, l.cut)
		recorder.Mark(l.cut)
		must(t, h.settle())
	}
	h.close()
	every := max(1, 10*(recorder.Ops()-from)/(*crashStates))
	tried := 0
	for crash := range recorder.Crashes(durabletest.Options{From: from, Every: every, Singles: 4, Random: 4}) {
		tried++
		if err := checkDelta(t, crash, contents, append([]replication.ID{firstCut}, cuts...)); err != nil {
			return tried, fmt.Errorf("%s: %w", crash, err)
		}
	}
	return tried, nil
}

// checkDelta says what a crash has left wrong: a view that is not that of the record's cut, or an older cut than was
// answered; then it brings the replica to the newest content.
func checkDelta(t *testing.T, crash *durabletest.Crash, contents map[replication.ID][]byte, cuts []replication.ID) error {
	h := newHost(t, crash.Recorder)
	defer h.close()
	held, record, err := h.view(false)
	if err != nil {
		return err
	}
	answered, ok := crash.Marks()[len(crash.Marks())-1].(replication.ID)
	if !ok || slices.Index(cuts, record.Cut) < slices.Index(cuts, answered) {
		return fmt.Errorf("cut %s was answered, the record has %s", answered, record.Cut)
	}
	if !bytes.Equal(held, contents[record.Cut]) {
		return errors.New("the view is not the content of the record's cut")
	}
	if err := h.settle(); err != nil {
		return err
	}
	if record.Transfer != nil {
		if err := h.link.Abort(t.Context(), record.Transfer.ID); err != nil {
			return err
		}
	}
	newest := contents[cuts[len(cuts)-1]]
	if err := errors.Join(h.transfer(newest, replication.KindResync), h.settle()); err != nil {
		return err
	}
	held, record, err = h.view(false)
	if err == nil && (!bytes.Equal(held, newest) || len(record.Garbage) > 0 || len(record.Files()) != 1) {
		err = fmt.Errorf("recovered, and the replica is another one, with %v and garbage %v", record.Files(), record.Garbage)
	}
	return err
}

func TestCrashInDeltas(t *testing.T) {
	tried, err := deltaCrashes(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if t.Logf("%d states", tried); tried < *crashStates/4 {
		t.Fatalf("only %d states were tried", tried)
	}
}

// Each sync of a delta is needed: without it a crash leaves something wrong.
func TestCrashFindsMutantsOfDeltas(t *testing.T) {
	for name, drop := range map[string]func(durabletest.Op) bool{
		"the layer is not synced":             durabletest.SyncOf("*.qcow2"),
		"the base is not synced in a merge":   durabletest.SyncOf(diskID),
		"the layer's directory is not synced": durabletest.SyncDirOf(vmName),
	} {
		t.Run(name, func(t *testing.T) {
			if tried, err := deltaCrashes(t, drop); err == nil {
				t.Fatalf("%d states show nothing", tried)
			}
		})
	}
}
