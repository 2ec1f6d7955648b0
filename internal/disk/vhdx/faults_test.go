package vhdx_test

import (
	"errors"
	"fmt"
	"maps"
	"syscall"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/vhdx"
	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
)

// faulty is a history in which an operation of the file fails. What failed is done once more, and when that fails too
// the error must be final.
type faulty struct {
	*durabletest.Recorder
	m *model
	d image
}

// TestEveryFaultIsReported lets every operation of a file's life fail in turn. The call that met the fault says so,
// that of a sync is final, and whatever was flushed before is there after a loss of power.
func TestEveryFaultIsReported(t *testing.T) {
	shapes := map[string]shape{
		"layer": smallLayer, "base": smallBase,
		"fixed base": {vhdx.Options{SizeBytes: 5 * mib, BlockBytes: mib, Fixed: true}, false},
	}
	for name, s := range shapes {
		for _, fault := range []error{syscall.EIO, syscall.ENOSPC, durabletest.Short(syscall.ENOSPC)} {
			t.Run(fmt.Sprint(name, ", ", fault), func(t *testing.T) {
				k := 1
				for failAt(t, s, k, fault) {
					k++
				}
				if k < 30 {
					t.Errorf("there were only %d operations", k)
				}
			})
		}
	}
}

// failAt plays a history whose k-th operation fails, and answers whether there was one.
func failAt(t *testing.T, s shape, k int, fault error) bool {
	t.Helper()
	f := &faulty{Recorder: durabletest.New(), m: newModel(s)}
	f.FailAt(k, fault)
	err := f.play()
	if !f.Faulted() {
		must(t, err)
		return false
	}
	if !errors.Is(err, fault) || errors.Is(err, errForgotten) {
		t.Fatalf("operation %d answered %v, and it was said: %v", k, fault, err)
	}
	for crash := range f.Crashes(durabletest.Options{From: f.Ops(), Singles: 1, Random: 1}) {
		if err := f.m.checkCrash(crash); err != nil {
			t.Fatalf("operation %d answered %v; %v:\n%v", k, fault, crash, err)
		}
	}
	return true
}

// errForgotten is said of a disk that goes on after an error that it must not forget.
var errForgotten = errors.New("the error was forgotten")

// play answers the first error, or what ought not to be.
func (f *faulty) play() error {
	file, err := f.Dir().Create("disk")
	if err != nil {
		return err
	}
	if f.d, err = f.m.create(file); err != nil {
		return err
	}
	if err := f.Dir().Sync("."); err != nil {
		return errors.Join(err, f.d.Close())
	}
	f.Mark(created{})
	var first error
	for _, step := range f.steps() {
		err := step()
		if err == nil {
			continue
		}
		first = err
		if again := step(); again != nil {
			return f.final(first)
		}
		if errors.Is(err, durable.ErrSync) {
			return fmt.Errorf("%w: %w", errForgotten, err)
		}
	}
	if err := f.d.Close(); err != nil {
		return err
	}
	return first
}

// final is err when every call goes on to fail.
func (f *faulty) final(err error) error {
	f.Mark(change{1 << 50, 0, 1})
	_, writing := f.d.WriteAt(content(1<<50), 0)
	for call, later := range map[string]error{
		"write": writing, "flush": f.d.Flush(), "identity": f.d.SetIdentity(disk.Identity{3}), "close": f.d.Close(),
	} {
		if later == nil {
			return fmt.Errorf("%w by %s: %w", errForgotten, call, err)
		}
	}
	return err
}

func (f *faulty) set(what int, first, count int64) func() error {
	stamp := f.m.last + 1
	if what == 0 {
		f.m.last += uint64(count)
	}
	return func() error {
		f.Mark(anyParty{})
		var p []byte
		for g := range count {
			written := uint64(0)
			if what == 0 {
				written = stamp + uint64(g)
				p = append(p, content(written)...)
			}
			f.Mark(change{written, first + g, 1})
			f.m.stamps[first+g] = written
		}
		switch what {
		case 0:
			_, err := f.d.WriteAt(p, first*grain)
			return err
		case 1:
			return f.d.Zero(first*grain, count*grain)
		default:
			return f.d.Unmap(first*grain, count*grain)
		}
	}
}

func (f *faulty) flush() error { return f.promise(f.d.Flush()) }

// promise marks what is durable after a call without an error.
func (f *faulty) promise(err error) error {
	if err == nil {
		f.Mark(flushed(maps.Clone(f.m.stamps)))
	}
	return err
}

func (f *faulty) seal() error {
	f.Mark(sealing("p.vhdx"))
	err := f.d.(*vhdx.Layer).Seal(disk.Parent{Name: "p.vhdx", Path: "/x/p.vhdx", Format: "vhdx", Identity: disk.Identity{1}})
	if err == nil {
		f.Mark(sealed("p.vhdx"))
	}
	return f.promise(err)
}

func (f *faulty) name() error {
	f.Mark(naming(disk.Identity{8}))
	err := f.d.SetIdentity(disk.Identity{8})
	if err == nil {
		f.Mark(named(disk.Identity{8}))
	}
	return f.promise(err)
}

// steps are changes on both sides of flushes, of places that are new, kept and freed.
func (f *faulty) steps() []func() error {
	steps := []func() error{
		f.set(0, 0, 3), f.set(0, 300, 2), f.flush,
		f.set(2, 0, 256), f.set(1, 301, 1), f.set(0, 700, 2), f.flush,
		f.set(0, 5, 2), f.set(0, 300, 1), f.flush,
	}
	if f.m.layer {
		steps = append(steps, f.seal)
	}
	return append(steps, f.name, f.set(0, 6, 1))
}
