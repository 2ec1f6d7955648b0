package hrl_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/hrl"
	"vmreplica/internal/replication"
)

const size = 3<<27 + 512 // three pages of marks and a short block

// bench is a directory with the log of one disk.
type bench struct {
	t    *testing.T
	dir  durable.Dir
	disk hrl.Disk
}

const name = "root.hrl"

func newBench(t *testing.T) *bench {
	dir, err := durable.OpenDir(t.TempDir())
	must(t, err)
	t.Cleanup(func() { must(t, dir.Close()) })
	return &bench{t, dir, hrl.Disk{Identity: replication.NewID(), Size: size, Stamp: disk.Stamp{Inode: 1}}}
}

// begun is a new log that is exact.
func (b *bench) begun() *hrl.Log {
	b.t.Helper()
	l, err := hrl.Create(b.dir, name, b.disk)
	must(b.t, err)
	b.disk.Opened = l.Opened()
	b.disk.Baselines = []replication.ID{replication.NewID()}
	must(b.t, l.Begin(b.disk.Baselines[0]))
	return l
}

func (b *bench) open() *hrl.Log {
	b.t.Helper()
	l, err := hrl.Open(b.dir, name, b.disk)
	must(b.t, err)
	return l
}

func (b *bench) path() string { return b.dir.Path(name) }

// patch alters the file's bytes.
func (b *bench) patch(alter func([]byte) []byte) {
	b.t.Helper()
	content, err := os.ReadFile(b.path())
	must(b.t, err)
	must(b.t, os.WriteFile(b.path(), alter(content), 0o600))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// epochOf flips and lists the blocks of the epoch.
func epochOf(t *testing.T, l *hrl.Log) (blocks []int64) {
	t.Helper()
	must(t, l.Flip())
	return pending(t, l)
}

func pending(t *testing.T, l *hrl.Log) (blocks []int64) {
	t.Helper()
	for at := int64(0); ; {
		found, n, err := l.Next(at, l.Size(), 1<<30)
		must(t, err)
		if n <= 0 {
			return blocks
		}
		for at = found; at < found+n; at += hrl.BlockSize {
			blocks = append(blocks, at/hrl.BlockSize)
		}
	}
}

func TestMarksMoveAndComeBack(t *testing.T) {
	l := newBench(t).begun()
	defer l.Abandon()
	must(t, l.Mark(4095, 2)) // blocks 0 and 1
	must(t, l.Mark(size-1, 1))
	last := int64(size / hrl.BlockSize)
	if got := epochOf(t, l); len(got) != 3 || got[0] != 0 || got[1] != 1 || got[2] != last {
		t.Fatalf("the epoch is %v", got)
	}
	if at, n, err := l.Next(last*hrl.BlockSize, size, 1<<20); err != nil || at != size-512 || n != 512 {
		t.Fatalf("the last block is %d bytes at %d, %v", n, at, err)
	}
	must(t, l.Mark(1<<20, 1))
	must(t, l.Sent(0, 8191)) // block 1 is not covered
	must(t, l.Sent(8192, 1<<20))
	if l.SentBytes() != hrl.SentSize {
		t.Fatalf("%d bytes are sent, of which most were not in the epoch", l.SentBytes())
	}
	must(t, l.Sent(size-512, 512))
	if got := pending(t, l); len(got) != 1 || got[0] != 1 {
		t.Fatalf("what is not sent is %v", got)
	}
	if err := l.Forget(); !errors.Is(err, hrl.ErrPending) {
		t.Fatalf("an epoch that was not sent was forgotten: %v", err)
	}
	if err := l.Flip(); !errors.Is(err, hrl.ErrPending) {
		t.Fatalf("an epoch that was not sent was flipped away: %v", err)
	}
	must(t, l.ReturnEpoch())
	if l.LiveBytes() != 2*hrl.BlockSize || l.EpochBytes() != 0 || l.SentBytes() != 2*hrl.SentSize {
		t.Fatalf("live %d, epoch %d, sent %d", l.LiveBytes(), l.EpochBytes(), l.SentBytes())
	}
	must(t, l.Restore())
	if l.LiveBytes() != (16+1+1)*hrl.BlockSize || l.SentBytes() != 0 {
		t.Fatalf("after the restoration live is %d, sent %d", l.LiveBytes(), l.SentBytes())
	}
	epochOf(t, l)
	must(t, l.Sent(0, size))
	must(t, l.Forget())
	if l.LiveBytes()+l.EpochBytes()+l.SentBytes() != 0 {
		t.Fatal("an acknowledged mark is still there")
	}
}

func TestALogIsBornLostAndExactFromBegin(t *testing.T) {
	b := newBench(t)
	l, err := hrl.Create(b.dir, name, b.disk)
	must(t, err)
	if l.Loss().Cause != hrl.TrackingLost {
		t.Fatalf("a new log is %v", l.Loss())
	}
	must(t, l.Mark(0, 1))
	begin := replication.NewID()
	must(t, l.Begin(begin))
	must(t, l.Flip())
	must(t, l.Mark(8192, 1))
	must(t, l.Discard())
	if got := epochOf(t, l); l.Loss().Cause != hrl.None || l.Baseline() != begin || len(got) != 1 || got[0] != 2 {
		t.Fatalf("%v since %s with %v", l.Loss(), l.Baseline(), got)
	}
	must(t, l.Abandon())
}

func TestWhatAKillLeavesIsFoundAgain(t *testing.T) {
	b := newBench(t)
	l := b.begun()
	must(t, l.Mark(0, 4096))
	must(t, l.Mark(1<<27, 4096))
	must(t, l.Flip())
	must(t, l.Sent(0, 4096))
	must(t, l.Mark(2<<27, 4096))
	must(t, l.Abandon())
	b.disk.Stamp.Inode = 2 // a killed agent knows no stamp
	l = b.open()
	defer l.Abandon()
	if got := epochOf(t, l); l.Loss().Cause != hrl.None || len(got) != 18 || got[16] != 1<<15 || got[17] != 2<<15 {
		t.Fatalf("%v: %v", l.Loss(), got)
	}
}

func TestContinuity(t *testing.T) {
	firstMark := func(content []byte) int { // the first page of marks follows two slots and three summaries
		for at := 5 * 4096; at < len(content); at++ {
			if content[at] != 0 {
				return at
			}
		}
		return -1
	}
	for what, test := range map[string]struct {
		killed bool
		before func(b *bench)
		want   hrl.Cause
		says   string
	}{
		"nothing happened":          {false, func(*bench) {}, hrl.None, ""},
		"killed":                    {true, func(*bench) {}, hrl.None, ""},
		"image written to":          {false, func(b *bench) { b.disk.Stamp.ModifiedNanoseconds = 5 }, hrl.ImageModified, "written to"},
		"an older image":            {false, func(b *bench) { b.disk.Stamp.ModifiedNanoseconds = -5 }, hrl.Reverted, "went back"},
		"image of another size":     {false, func(b *bench) { b.disk.Size += 4096 }, hrl.Reverted, "402657792"},
		"another disk's log":        {false, func(b *bench) { b.disk.Identity = replication.NewID() }, hrl.TrackingLost, "another disk"},
		"an older copy":             {false, func(b *bench) { b.disk.Opened++ }, hrl.Reverted, "older copy"},
		"another baseline":          {false, func(b *bench) { b.disk.Baselines[0] = replication.NewID() }, hrl.Reverted, "baseline"},
		"no log":                    {false, func(b *bench) { must(b.t, os.Remove(b.path())) }, hrl.TrackingLost, "there is no log"},
		"cut short":                 {false, func(b *bench) { must(b.t, os.Truncate(b.path(), 30_000)) }, hrl.TrackingLost, "30000 bytes"},
		"cut to nothing":            {true, func(b *bench) { must(b.t, os.Truncate(b.path(), 0)) }, hrl.TrackingLost, "header is damaged"},
		"one slot damaged":          {false, func(b *bench) { b.patch(func(c []byte) []byte { c[50] ^= 1; return c }) }, hrl.None, ""},
		"the other slot damaged":    {true, func(b *bench) { b.patch(func(c []byte) []byte { c[4200] ^= 1; return c }) }, hrl.None, ""},
		"both slots damaged":        {false, func(b *bench) { b.patch(func(c []byte) []byte { c[50] ^= 1; c[4200] ^= 1; return c }) }, hrl.TrackingLost, "header"},
		"a mark lost":               {false, func(b *bench) { b.patch(func(c []byte) []byte { c[firstMark(c)] = 0; return c }) }, hrl.TrackingLost, "marks"},
		"a page of marks forgotten": {false, func(b *bench) { b.patch(func(c []byte) []byte { c[2*4096] = 0; return c }) }, hrl.TrackingLost, "marks"},
		"a copy put in its place while open": {true, func(b *bench) {
			copied := filepath.Join(filepath.Dir(b.path()), "copy")
			content, err := os.ReadFile(b.path())
			must(b.t, err)
			must(b.t, os.WriteFile(copied, content, 0o600))
			must(b.t, os.Rename(copied, b.path()))
		}, hrl.Reverted, "another file"},
	} {
		t.Run(what, func(t *testing.T) {
			b := newBench(t)
			l := b.begun()
			must(t, l.Mark(40960, 4096))
			if test.killed {
				must(t, l.Abandon())
			} else {
				must(t, l.Close(b.disk.Stamp))
			}
			test.before(b)
			l = b.open()
			if got := l.Loss(); got.Cause != test.want || !strings.Contains(got.Evidence, test.says) {
				t.Fatalf("%v, want %v with %q", got, test.want, test.says)
			}
			must(t, l.Close(b.disk.Stamp))
			l = b.open()
			if got := l.Loss(); got.Cause != test.want {
				t.Fatalf("opened again it is %v", got)
			}
			must(t, l.Abandon())
		})
	}
}

func TestAnOlderCopyPutBack(t *testing.T) {
	b := newBench(t)
	l := b.begun()
	must(t, l.Close(b.disk.Stamp))
	copied, err := os.ReadFile(b.path())
	must(t, err)
	l = b.open()
	b.disk.Opened = l.Opened()
	must(t, l.Mark(0, 1))
	must(t, l.Close(b.disk.Stamp)) // the image's times were put back as well
	must(t, os.WriteFile(b.path(), copied, 0o600))
	l = b.open()
	defer l.Abandon()
	if got := l.Loss(); got.Cause != hrl.Reverted {
		t.Fatalf("an older copy of the log is %v", got)
	}
}

// TestACopyOfBeforeTheClosing puts back what the log was while it was open, which looks like what a killed agent leaves.
func TestACopyOfBeforeTheClosing(t *testing.T) {
	b := newBench(t)
	l := b.begun()
	copied, err := os.ReadFile(b.path())
	must(t, err)
	must(t, l.Mark(0, 1))
	must(t, l.Close(b.disk.Stamp))
	b.disk.Closed = true
	closed, err := os.ReadFile(b.path())
	must(t, err)
	for _, c := range []struct {
		content []byte
		want    hrl.Cause
	}{{closed, hrl.None}, {copied, hrl.Reverted}} {
		must(t, os.WriteFile(b.path(), c.content, 0o600))
		l = b.open()
		if got := l.Loss(); got.Cause != c.want {
			t.Errorf("the log is %v, want %v", got, c.want)
		}
		must(t, l.Abandon())
	}
	// An agent that is killed when it has opened the log, and before it has recorded that, still has it as closed.
	must(t, os.WriteFile(b.path(), closed, 0o600))
	must(t, b.open().Abandon())
	l = b.open()
	if got := l.Loss(); got.Cause != hrl.None {
		t.Errorf("opened and not recorded it is %v", got)
	}
	must(t, l.Abandon())
}

// TestALogThatWasNotThereForAWhile serves the disk without its log between a kill and the log's return.
func TestALogThatWasNotThereForAWhile(t *testing.T) {
	b := newBench(t)
	l := b.begun()
	must(t, l.Mark(0, 1))
	must(t, l.Abandon())
	l, err := hrl.InMemory(b.disk, hrl.Loss{Cause: hrl.WriteFailed, Evidence: "no room"})
	must(t, err)
	b.disk.Opened = l.Opened()
	must(t, l.Close(b.disk.Stamp))
	l = b.open()
	defer l.Abandon()
	if got := l.Loss(); got.Cause != hrl.Reverted {
		t.Fatalf("the log that does not know of it is %v", got)
	}
}

func TestInspectTellsWhatIsThere(t *testing.T) {
	b := newBench(t)
	l := b.begun()
	must(t, l.Mark(0, 3*4096))
	must(t, l.Flip())
	must(t, l.Mark(1<<27, 4096))
	must(t, l.Sent(0, 4096))
	file, err := os.Open(b.path())
	must(t, err)
	defer file.Close()
	info, err := hrl.Inspect(file, hrl.FileBytes(size))
	must(t, err)
	if info.MarkedA != 8192 || info.MarkedB != 4096 || info.Sent != 65536 || info.Clean || info.Loss.Cause != hrl.None ||
		info.Identity != b.disk.Identity || info.Baseline != b.disk.Baselines[0] || info.Opened != 1 {
		t.Fatalf("%+v", info)
	}
	must(t, l.Lose(hrl.Loss{Cause: hrl.Reverted, Evidence: "it was said"}))
	must(t, l.Close(b.disk.Stamp))
	info, err = hrl.Inspect(file, hrl.FileBytes(size))
	must(t, err)
	var text strings.Builder
	for _, line := range info.Lines() {
		text.WriteString(line[0] + ": " + line[1] + "\n")
	}
	for _, want := range []string{"closed cleanly", "it was said", "Reverted", string(b.disk.Identity), "lost since"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in\n%s", want, &text)
		}
	}
	if _, err := hrl.Inspect(file, 4096); err == nil {
		t.Error("a file cut short was taken")
	}
}
