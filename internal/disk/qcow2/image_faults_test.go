package qcow2_test

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"

	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
)

// errForgotten is said of an image that goes on after an error that it must not forget.
var errForgotten = errors.New("the error was forgotten")

// faultyImage is a history in which an operation of the file fails. What failed is done once more, and when that
// fails too the error must be final.
type faultyImage struct {
	*durabletest.Recorder
	s *sectors
	i *qcow2.Image
}

// TestEveryFaultOfAnImageIsReported lets every operation of a file's life fail in turn. The call that met the fault
// says so, that of a sync is final, and whatever was flushed before is there after a loss of power.
func TestEveryFaultOfAnImageIsReported(t *testing.T) {
	for _, fault := range []error{syscall.EIO, syscall.ENOSPC, durabletest.Short(syscall.ENOSPC)} {
		t.Run(fault.Error(), func(t *testing.T) {
			k := 1
			for failImageAt(t, k, fault) {
				k++
			}
			if k < 30 {
				t.Errorf("there were only %d operations", k)
			}
		})
	}
}

// failImageAt plays a history whose k-th operation fails, and answers whether there was one.
func failImageAt(t *testing.T, k int, fault error) bool {
	t.Helper()
	f := &faultyImage{Recorder: durabletest.New(), s: newSectors(256 << 10)}
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
		if err := checkImageCrash(crash); err != nil {
			t.Fatalf("operation %d answered %v; %v:\n%v", k, fault, crash, err)
		}
	}
	return true
}

// play answers the first error, or what ought not to be.
func (f *faultyImage) play() error {
	file, err := f.Dir().Create("image")
	if err != nil {
		return err
	}
	f.i, err = qcow2.CreateImage(file, qcow2.ImageOptions{SizeBytes: 256 << 10, ClusterBytes: 512})
	if err != nil {
		return err
	}
	if err := f.Dir().Sync("."); err != nil {
		return errors.Join(err, f.i.Close())
	}
	f.Mark(imageThere{})
	f.Mark(imageFlushed(slices.Clone(f.s.stamps)))
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
	if err := f.i.Close(); err != nil {
		return err
	}
	return first
}

// final is err when every call goes on to fail.
func (f *faultyImage) final(err error) error {
	f.Mark(imageChange{0, []uint64{1 << 50}})
	_, writing := f.i.WriteAt(stamped(1<<50), 0)
	for call, later := range map[string]error{"write": writing, "flush": f.i.Flush(), "close": f.i.Close()} {
		if later == nil {
			return fmt.Errorf("%w by %s: %w", errForgotten, call, err)
		}
	}
	return err
}

// steps are changes on both sides of flushes: of clusters that are new, kept, freed and taken again, and so many that
// the refcounts need a new block.
func (f *faultyImage) steps() []func() error {
	return []func() error{
		f.set(0, 0, 40), f.flush, f.set(2, 3, 30), f.set(0, 100, 20), f.flush,
		f.set(0, 101, 2), f.set(1, 110, 3), f.flush, f.set(0, 200, 250), f.flush, f.set(0, 7, 1),
	}
}

func (f *faultyImage) set(what int, first, count int64) func() error {
	stamps := make([]uint64, count)
	var p []byte
	for n := range stamps {
		if what == 0 {
			f.s.last++
			stamps[n] = f.s.last
		}
		p = append(p, stamped(stamps[n])...)
	}
	return func() error {
		f.Mark(imageChange{first, stamps})
		copy(f.s.stamps[first:], stamps)
		switch what {
		case 0:
			_, err := f.i.WriteAt(p, first*sector)
			return err
		case 1:
			return f.i.Zero(first*sector, count*sector)
		default:
			return f.i.Unmap(first*sector, count*sector)
		}
	}
}

func (f *faultyImage) flush() error {
	err := f.i.Flush()
	if err == nil {
		f.Mark(imageFlushed(slices.Clone(f.s.stamps)))
	}
	return err
}
