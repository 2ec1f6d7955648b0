package guest_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"vmreplica/test/guest"
)

// TestAKilledTrackerUnderLoad kills it at any moment of a shipment: the load meets no error, every block that the replica
// does not have is marked, and in the end the replica is the disk.
func TestAKilledTrackerUnderLoad(t *testing.T) {
	t.Parallel()
	tr, load := loaded(t, "")
	behind := 0
	for range 50 {
		differing, clean := tr.killAmid()
		if clean > 0 {
			t.Fatalf("%d of %d blocks changed and are clean", clean, differing)
		}
		if differing > 0 {
			behind++
		}
		tr.start()
	}
	load.End()
	tr.do("cut")
	if found := digest(t, tr.file("a.replica")); found != digest(t, tr.file("a.raw")) {
		t.Error("the replica is not the disk")
	}
	if behind < 25 {
		t.Errorf("only %d kills found a replica that was behind", behind)
	}
}

// TestAKillFindsMarksThatWereClearedEarly is the control of the one before.
func TestAKillFindsMarksThatWereClearedEarly(t *testing.T) {
	t.Parallel()
	tr, _ := loaded(t, "clear-on-receipt")
	for range 20 {
		tr.awaitWrite()
		tr.do("abort")
		tr.kill()
		if _, clean := tr.compare(); clean > 0 {
			return
		}
		tr.start()
	}
	t.Error("no kill found a block that changed and is clean")
}

func loaded(t *testing.T, faults string) (*tracker, *guest.Load) {
	tr := newTracker(t, faults)
	tr.do("begin")
	return tr, guest.StartLoad(t, guest.Exported(tr.file("nbd.sock"), "a"))
}

// killAmid kills the tracker while it ships under the load, and compares what it left.
func (tr *tracker) killAmid() (differing, clean int) {
	tr.t.Helper()
	tr.awaitWrite()
	_, err := fmt.Fprintln(tr.words, "cut")
	must(tr.t, err)
	time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond)
	tr.kill()
	return tr.compare()
}

// compare is what differs, and what of it no mark tells.
func (tr *tracker) compare() (differing, clean int) {
	tr.t.Helper()
	return guest.Unmarked(tr.t, tr.file("a.hrl"), tr.file("a.raw"), tr.file("a.replica"))
}

// awaitWrite waits until the load writes.
func (tr *tracker) awaitWrite() {
	tr.t.Helper()
	for before := tr.written(); tr.written() == before; time.Sleep(5 * time.Millisecond) {
	}
}

// written is when the load wrote last.
func (tr *tracker) written() time.Time {
	tr.t.Helper()
	info, err := os.Stat(tr.file("a.raw"))
	must(tr.t, err)
	return info.ModTime()
}
