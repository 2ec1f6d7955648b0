package chain_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/storage"
	"vmreplica/blockdiff"
	"vmreplica/internal/disk"
	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	"vmreplica/internal/state"
	"vmreplica/internal/state/statetest"
)

// killed is a storage whose agent may be killed: then no base is settled.
type killed struct {
	chain.Storage
	dead bool
}

var errKilled = errors.New("killed")

func (k *killed) Settle(b chain.Base) (disk.Stamp, error) {
	if k.dead {
		return disk.Stamp{}, errKilled
	}
	return k.Storage.Settle(b)
}

// host is a replica's directory and store, on which agents are started one after another.
type host struct {
	store state.Store
	files *killed
	base  string
}

func newHost(t *testing.T, existing bool) *host {
	t.Helper()
	dir := t.TempDir()
	files, err := storage.Open(dir, nil)
	check(t, err)
	t.Cleanup(func() { check(t, files.Close()) })
	h := &host{store: statetest.New(durabletest.New()), files: &killed{Storage: files}, base: filepath.Join(dir, "p/web01/root")}
	if existing {
		check(t, os.MkdirAll(filepath.Dir(h.base), 0o700))
		check(t, os.WriteFile(h.base, bytes.Repeat([]byte{7}, size), 0o600))
	}
	_, err = h.registry().Prepare(h.prepare(existing))
	check(t, err)
	return h
}

func (h *host) prepare(existing bool) chain.Prepare {
	return chain.Prepare{VM: "web01", UID: id("0"), Primary: "p", Directory: "p/web01", Term: 1, UseExisting: existing,
		Disks: []chain.PrepareDisk{{Geometry: geometry()}}}
}

func (h *host) registry() *chain.Registry {
	return chain.NewRegistry(chain.NewTable(h.store, nil), h.files)
}

// start is a new agent's VM.
func (h *host) start() *chain.VM { return h.registry().VM("web01") }

// copyFirst receives a part of the first copy, saves the cursor after it and ends, in order or not.
func (h *host) copyFirst(t *testing.T, inOrder bool) {
	t.Helper()
	vm := h.start()
	check(t, vm.Acquire())
	b := begin("a")
	b.Kind = replication.KindInitial
	_, err := vm.Begin(b)
	check(t, err)
	_, err = vm.Update(func(r *chain.Record) error { return r.TakeSession(id("a"), "root", 1) })
	check(t, err)
	opened, err := vm.Disk("root")
	check(t, err)
	_, err = opened.Top().WriteAt(bytes.Repeat([]byte{3}, 4096), 8192)
	check(t, errors.Join(err, opened.Top().Flush()))
	_, err = vm.SaveCursor(id("a"), "root", 1, 1, blockdiff.Hash{2})
	check(t, err)
	_, err = opened.Top().WriteAt(bytes.Repeat([]byte{4}, 4096), 16384)
	check(t, err)
	h.end(t, vm, inOrder)
}

func (h *host) end(t *testing.T, vm *chain.VM, inOrder bool) {
	t.Helper()
	h.files.dead = !inOrder
	if err := vm.Release(); !inOrder != errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	h.files.dead = false
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What was proven of an incomplete base counts after a restart unless another program was seen to have written to it.
func TestTheCursorOfAnIncompleteBase(t *testing.T) {
	at := func(ago time.Duration) func(*testing.T, string) {
		return func(t *testing.T, base string) {
			write(t, base)
			check(t, os.Chtimes(base, time.Now().Add(-ago), time.Now().Add(-ago)))
		}
	}
	for name, c := range map[string]struct {
		inOrder bool
		between func(t *testing.T, base string)
		kept    bool
	}{
		"in order":                       {true, func(*testing.T, string) {}, true},
		"in order, then a foreign write": {true, write, false},
		"killed":                         {false, func(*testing.T, string) {}, true},
		"killed, then a late write":      {false, at(-3 * time.Minute), false},
		"killed, then put back in time":  {false, at(time.Hour), false},
		"killed, then replaced":          {false, replace, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, false)
			h.copyFirst(t, c.inOrder)
			c.between(t, h.base)
			vm := h.start()
			doubts, err := vm.Doubts()
			if err != nil || doubts[0] != "" {
				t.Errorf("a doubt about what nothing is claimed of: %q, %v", doubts, err)
			}
			check(t, vm.Acquire())
			defer vm.Release()
			record, err := vm.Record()
			check(t, err)
			cursor := record.Cursor("root")
			if kept := cursor.Segment == 1 && cursor.Session == 1; kept != c.kept {
				t.Errorf("the cursor is %d of session %d", cursor.Segment, cursor.Session)
			}
			if restarted := cursor.Segment == 0 && cursor.Session > 1; restarted == c.kept {
				t.Errorf("the cursor is %d of session %d", cursor.Segment, cursor.Session)
			}
		})
	}
}

// A first copy that another file was put in place of does not commit.
func TestAnIncompleteBaseThatIsReplacedDoesNotCommit(t *testing.T) {
	h := newHost(t, false)
	vm := h.start()
	check(t, vm.Acquire())
	defer vm.Release()
	commit := prove(t, vm, "a")
	replace(t, h.base)
	if _, err := vm.Commit(commit); reason(err) != failure.ReasonReplicaRecord {
		t.Errorf("the commit answered %v", err)
	}
}

// replace puts another file of the same size in a file's place.
func replace(t *testing.T, path string) {
	t.Helper()
	check(t, os.WriteFile(path+".new", make([]byte, size), 0o600))
	check(t, os.Rename(path+".new", path))
}

// merging begins a merge, writes to the base and ends, in order or not.
func (h *host) merging(t *testing.T, inOrder bool) {
	t.Helper()
	vm := h.start()
	check(t, vm.Acquire())
	transfer(t, vm, "a")
	_, err := vm.StartMerge("root", lowest(t, vm), 4096)
	check(t, err)
	opened, err := vm.Disk("root")
	check(t, err)
	_, err = opened.Base().WriteAt([]byte{3}, 8192)
	check(t, err)
	h.end(t, vm, inOrder)
}

// A base under an unfinished merge is this agent's to write, and nobody else's.
func TestAnInterruptedMergeIsNotTakenForAForeignWrite(t *testing.T) {
	backwards := func(t *testing.T, base string) {
		check(t, os.Chtimes(base, time.Unix(1000, 0), time.Unix(1000, 0)))
	}
	nothing := func(*testing.T, string) {}
	for name, c := range map[string]struct {
		inOrder bool
		between func(t *testing.T, base string)
		doubt   string
	}{
		"in order":                       {true, nothing, ""},
		"in order, then a foreign write": {true, write, "written to"},
		"killed":                         {false, nothing, ""},
		"killed, then replaced":          {false, replace, "another file"},
		"killed, then put back in time":  {false, backwards, "modification time"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, true)
			h.merging(t, c.inOrder)
			c.between(t, h.base)
			vm := h.start()
			check(t, vm.Acquire())
			record, err := vm.Record()
			check(t, err)
			if doubt := record.Disks[0].Doubt; c.doubt == "" && doubt != "" || !strings.Contains(doubt, c.doubt) {
				t.Errorf("the doubt is %q, want %q", doubt, c.doubt)
			}
			_, err = vm.StartMerge("root", lowest(t, vm), 4096)
			check(t, err)
			_, err = vm.FinishMerge("root", chain.Merged{})
			check(t, errors.Join(err, vm.Release()))
			write(t, h.base)
			if doubts, err := h.start().Doubts(); err != nil || doubts[0] == "" {
				t.Errorf("a foreign write after the merge is not seen: %v", err)
			}
		})
	}
}

// The stamp that a finished merge or a commit records must outlive a loss of power.
func TestAStampIsRecordedOnlyOfASettledBase(t *testing.T) {
	for name, run := range map[string]func(*testing.T, *host, *chain.VM) error{
		"a merge": func(t *testing.T, h *host, vm *chain.VM) error {
			transfer(t, vm, "a")
			_, err := vm.StartMerge("root", lowest(t, vm), 4096)
			check(t, err)
			h.files.dead = true
			_, err = vm.FinishMerge("root", chain.Merged{})
			return err
		},
		"a first copy": func(t *testing.T, h *host, vm *chain.VM) error {
			commit := prove(t, vm, "a")
			h.files.dead = true
			_, err := vm.Commit(commit)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, name == "a merge")
			vm := h.start()
			check(t, vm.Acquire())
			if err := run(t, h, vm); !errors.Is(err, errKilled) {
				t.Errorf("it ended with %v", err)
			}
			h.files.dead = false
			check(t, vm.Release())
		})
	}
}

// A preparation takes over only what an unfinished one of the same VM has made.
func TestAPreparationTakesOverOnlyItsOwnFiles(t *testing.T) {
	for name, c := range map[string]struct {
		begun bool
		lies  []byte
		want  string
	}{
		"a foreign file without content":    {false, make([]byte, 0), failure.ReasonBaseExists},
		"its own file without content":      {true, make([]byte, 0), ""},
		"a file with content in that place": {true, []byte("content"), failure.ReasonBaseExists},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			files, err := storage.Open(dir, nil)
			check(t, err)
			defer files.Close()
			h := &host{store: statetest.New(durabletest.New()), files: &killed{Storage: files}, base: filepath.Join(dir, "p/web01/root")}
			if c.begun {
				h.files.dead = true
				if _, err := h.registry().Prepare(h.prepare(false)); !errors.Is(err, errKilled) {
					t.Fatal(err)
				}
				h.files.dead = false
			}
			check(t, os.MkdirAll(filepath.Dir(h.base), 0o700))
			check(t, os.WriteFile(h.base, c.lies, 0o600))
			if len(c.lies) == 0 {
				check(t, os.Truncate(h.base, size))
			}
			if _, err := h.registry().Prepare(h.prepare(false)); reason(err) != c.want {
				t.Errorf("the preparation answered %v", err)
			}
		})
	}
}

// A cursor is kept when the agent was killed in a session that began long after the cursor was saved.
func TestALateSessionsWritesAreItsOwn(t *testing.T) {
	for name, c := range map[string]struct {
		taken time.Duration
		kept  bool
	}{"a late session": {0, true}, "an early session": {-time.Hour, false}} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, false)
			h.copyFirst(t, true)
			vm := h.start()
			earlier := time.Now().Add(-time.Hour)
			check(t, os.Chtimes(h.base, earlier, earlier))
			now, err := h.files.Stamp(chain.Base{File: "p/web01/root"})
			check(t, err)
			_, err = vm.Update(func(r *chain.Record) error { return r.SettleBase("root", now) })
			check(t, err)
			check(t, vm.Acquire())
			_, err = vm.TakeSession(chain.Session{
				Transfer: id("a"), Disk: "root", Number: 2, Term: 1, Time: time.Now().Add(c.taken),
			})
			check(t, err)
			opened, err := vm.Disk("root")
			check(t, err)
			_, err = opened.Top().WriteAt(bytes.Repeat([]byte{5}, 4096), 16384)
			check(t, errors.Join(err, opened.Top().Flush()))
			h.end(t, vm, false)
			vm = h.start()
			check(t, vm.Acquire())
			defer vm.Release()
			record, err := vm.Record()
			check(t, err)
			if kept := record.Cursor("root").Segment == 1; kept != c.kept {
				t.Errorf("the cursor is %+v", record.Cursor("root"))
			}
		})
	}
}

// A term that was raised after a call was admitted is seen by the transaction that the call makes.
func TestALowerTermChangesNothing(t *testing.T) {
	_, vm, _ := adopted(t)
	check(t, vm.Acquire())
	defer vm.Release()
	_, err := vm.Begin(begin("a"))
	check(t, err)
	before, err := vm.Update(func(r *chain.Record) error { return r.RaiseTerm(2) })
	check(t, err)
	_, err = vm.TakeSession(chain.Session{Transfer: id("a"), Disk: "root", Number: 9, Term: 1})
	wantStale(t, "a session", err)
	restart := begin("b")
	restart.Restart = true
	_, err = vm.Begin(restart)
	wantStale(t, "a beginning", err)
	_, err = vm.Abort(id("a"), 1)
	wantStale(t, "an abort", err)
	after, err := vm.Record()
	check(t, err)
	if after.Transfer == nil || after.Transfer.ID != before.Transfer.ID || after.Cursor("root").Session != before.Cursor("root").Session {
		t.Errorf("the transfer is %+v", after.Transfer)
	}
}

func wantStale(t *testing.T, what string, err error) {
	t.Helper()
	if reason(err) != failure.ReasonStaleTerm {
		t.Errorf("%s: %v", what, err)
	}
}
