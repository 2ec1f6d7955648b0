package guest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"vmreplica/internal/durable"
	"vmreplica/internal/hrl"
	"vmreplica/test/guest"
)

// clean counts the blocks of a disk that are not as the replica has them, and fails the test where the log of the tracker,
// which was killed, does not have one.
func (tr *tracker) clean(name string) (differing int) {
	tr.t.Helper()
	t := tr.t
	known := map[string]*hrl.Disk{}
	state, err := os.ReadFile(tr.file("state"))
	must(t, err)
	must(t, json.Unmarshal(state, &known))
	known[name].Size = size
	content, err := os.ReadFile(tr.file(name + ".hrl"))
	must(t, err)
	dir, err := durable.OpenDir(t.TempDir())
	must(t, err)
	defer dir.Close()
	must(t, os.WriteFile(dir.Path("log"), content, 0o600))
	log, err := hrl.Open(dir, "log", *known[name])
	must(t, err)
	defer log.Abandon()
	must(t, log.Flip()) // whatever a copy of a log is taken for
	for at := range changed(t, tr.file(name+".raw"), tr.file(name+".replica")) {
		differing++
		if is, err := log.Marked(at, 1); err != nil || !is {
			t.Fatalf("block %d of disk %s changed and is clean, %v", at/hrl.BlockSize, name, err)
		}
	}
	return differing
}

// changed yields the blocks by which two files differ.
func changed(t testing.TB, a, b string) func(func(int64) bool) {
	return func(yield func(int64) bool) {
		first, err := os.Open(a)
		must(t, err)
		defer first.Close()
		second, err := os.Open(b)
		must(t, err)
		defer second.Close()
		p, q := make([]byte, hrl.BlockSize), make([]byte, hrl.BlockSize)
		for at := int64(0); at < size; at += hrl.BlockSize {
			_, err := io.ReadFull(first, p)
			must(t, err)
			_, err = io.ReadFull(second, q)
			must(t, err)
			if !bytes.Equal(p, q) && !yield(at) {
				return
			}
		}
	}
}

// TestAKilledTrackerUnderLoad kills it at any moment of a shipment: the load meets no error, every block that the replica
// does not have is marked, and in the end the replica is the disk.
func TestAKilledTrackerUnderLoad(t *testing.T) {
	t.Parallel()
	tr := newTracker(t, "")
	tr.do("begin")
	load := guest.StartLoad(t, guest.Exported(tr.file("nbd.sock"), "a"))
	behind := 0
	for range 10 {
		_, err := fmt.Fprintln(tr.words, "cut")
		must(t, err)
		time.Sleep(time.Duration(rand.IntN(1500)) * time.Millisecond)
		tr.kill()
		if tr.clean("a") > 0 {
			behind++
		}
		tr.start()
	}
	load.End()
	tr.do("cut")
	if found := digest(t, tr.file("a.replica")); found != digest(t, tr.file("a.raw")) {
		t.Error("the replica is not the disk")
	}
	if behind < 5 {
		t.Errorf("only %d kills found a replica that was behind", behind)
	}
}
