package tracking_test

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmreplica/agent-primary/tracking"
	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/hrl"
	"vmreplica/internal/replication"
)

const tebibyte = 1 << 40

// void is an image of any size that holds nothing; its flushes are slow.
type void struct {
	disk.Image
	size  int64
	flush time.Duration
}

func (v void) Size() int64                            { return v.size }
func (v void) LogicalSectorSize() int                 { return 512 }
func (v void) ReadAt(p []byte, _ int64) (int, error)  { return len(p), nil }
func (v void) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (v void) Flush() error                           { <-time.After(v.flush); return nil }
func (v void) Stamp() (disk.Stamp, error)             { return disk.Stamp{}, nil }
func (v void) Close() error                           { return nil }

// openVoid is a group of empty disks of 1 TiB with logs of their own.
func openVoid(t testing.TB, count int, flush time.Duration) (*tracking.Group, []*tracking.Disk) {
	t.Helper()
	dir, err := durable.OpenDir(t.TempDir())
	must(t, err)
	var disks []*tracking.Disk
	for i := range count {
		d, err := tracking.OpenLive(tracking.LiveOptions{
			ID: name(i), Image: void{size: tebibyte, flush: flush}, Logs: dir, Log: name(i),
			Known: hrl.Disk{Identity: replication.NewID()}, Lost: func(hrl.Loss) error { return nil },
		})
		must(t, err)
		t.Cleanup(func() { must(t, d.Close()) })
		disks = append(disks, d)
	}
	group := tracking.NewGroup(disks, tracking.NewBudget(ample))
	_, err = group.Begin(t.Context(), replication.NewID())
	must(t, err)
	return group, disks
}

func BenchmarkAdmission(b *testing.B) {
	for what, reach := range map[string]int64{"hot": 1 << 20, "random": tebibyte} {
		b.Run(what, func(b *testing.B) {
			_, disks := openVoid(b, 1, 0)
			p := make([]byte, 4096)
			for b.Loop() {
				if _, err := disks[0].WriteAt(p, rand.Int64N(reach/4096)*4096); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// cpu is the processor time that the process has used.
func cpu(t testing.TB) time.Duration {
	t.Helper()
	var usage unix.Rusage
	must(t, unix.Getrusage(unix.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func TestACycleOnAnIdleDiskCostsNothing(t *testing.T) {
	group, disks := openVoid(t, 1, 0)
	_, err := disks[0].WriteAt(make([]byte, 4096), tebibyte/2)
	must(t, err)
	const cycles = 50
	before := cpu(t)
	for range cycles {
		e, err := group.Cut(t.Context(), replication.NewID())
		must(t, err)
		for r, err := range e.Extents(0) {
			must(t, err)
			must(t, e.Sent(0, r.Offset, r.Length))
		}
		must(t, e.Ack())
	}
	if each := (cpu(t) - before) / cycles; each > 20*time.Millisecond {
		t.Errorf("a cycle on an idle disk of 1 TiB takes %v of a processor", each)
	} else {
		t.Logf("%v of a processor for a cycle", each)
	}
}

// TestACutHoldsWritesBriefly cuts four disks of 1 TiB under writes, with flushes of 30 ms beside them.
func TestACutHoldsWritesBriefly(t *testing.T) {
	group, disks := openVoid(t, 4, 30*time.Millisecond)
	var stop atomic.Bool
	var written atomic.Int64
	var wait sync.WaitGroup
	for _, d := range disks {
		wait.Go(func() {
			for p := make([]byte, 4096); !stop.Load(); written.Add(1) {
				off := rand.Int64N(128)*(tebibyte/128) + rand.Int64N(1<<15)*4096
				if _, err := d.WriteAt(p, off); err != nil {
					t.Error(err)
				}
				<-time.After(20 * time.Microsecond) // a disk's speed, not the memory's
			}
		})
		wait.Go(func() {
			for !stop.Load() {
				if err := d.Flush(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var held []time.Duration
	for number := range int64(200) {
		for written.Load() < 50*number {
			runtime.Gosched()
		}
		e, err := group.Cut(t.Context(), replication.NewID())
		must(t, err)
		held = append(held, group.Figures().Held)
		for i := range disks {
			must(t, e.Sent(i, 0, tebibyte))
		}
		must(t, e.Ack())
	}
	stop.Store(true)
	wait.Wait()
	slices.Sort(held)
	t.Logf("%d writes; they were held for %v at the median, %v at p99", written.Load(), held[100], held[197])
	if held[197] > 5*time.Millisecond {
		t.Errorf("writes were held for %v at p99", held[197])
	}
}
