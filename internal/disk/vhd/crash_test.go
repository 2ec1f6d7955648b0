package vhd_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/vhd"
	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
)

// TestCrashes loses power after every operation, with every choice of what was not synced. Each state opens, holds
// what was flushed and nothing that was never written there, and can be gone on with.
func TestCrashes(t *testing.T) {
	disktest.OneGoroutine(t)
	for name, c := range crashed {
		t.Run(name, func(t *testing.T) {
			s := start(t, durabletest.New(), c.differencing, c.options)
			s.play(t)
			states := 0
			for crash := range s.Crashes(durabletest.Options{Singles: 12, Random: 4}) {
				err := checkCrash(crash, c.differencing)
				if err == nil && states%17 == 0 {
					err = goOn(crash, c.differencing)
				}
				if err == nil && states%101 == 0 {
					err = askOracle(t, crash, c.differencing)
				}
				if err != nil {
					t.Fatalf("%v\n%v", crash, err)
				}
				states++
			}
			t.Logf("%d states", states)
		})
	}
}

// sparedSyncs are those that short can do without. The first, while the file grows, is what TestNoFooterIsForged needs.
// The others are SetIdentity's: of nothing, and of the footers, one of which would do for this package alone.
var sparedSyncs = map[string][]int{
	"fixed":               {},
	"dynamic":             {3, 9, 10},
	"differencing":        {3, 13, 14, 15},
	"differencing, 2 MiB": {3, 13, 14, 15},
}

// TestSyncsAreNeeded leaves out one sync after the other, and each time there is a crash that breaks a promise.
func TestSyncsAreNeeded(t *testing.T) {
	disktest.OneGoroutine(t)
	for name, c := range crashed {
		t.Run(name, func(t *testing.T) {
			spared := []int{}
			for lost, done := 1, false; !done; lost++ {
				r := durabletest.New()
				done = !dropSync(r, lost, func() { start(t, r, c.differencing, c.options).short(t) })
				if !done && !anyCrashFails(r, c.differencing) {
					spared = append(spared, lost)
				}
			}
			if !slices.Equal(spared, sparedSyncs[name]) {
				t.Errorf("syncs %v can be left out", spared)
			}
		})
	}
}

// dropSync leaves out the n-th sync of a file while play runs, and says whether there was one.
func dropSync(r *durabletest.Recorder, n int, play func()) bool {
	seen := 0
	r.Drop(func(op durabletest.Op) bool {
		if op.Kind == durabletest.Sync {
			seen++
		}
		return op.Kind == durabletest.Sync && seen == n
	})
	play()
	return seen >= n
}

// TestNoFooterIsForged lets a guest fill its disk with footers of a fixed disk. Whatever a crash leaves, the file is
// taken for what it is; without the sync of the file's growth it is not.
func TestNoFooterIsForged(t *testing.T) {
	forged := func(r *durabletest.Recorder) bool {
		for crash := range r.Crashes(durabletest.Options{}) {
			file, err := crash.Dir().Open("disk", durable.ReadOnly)
			if err != nil || len(crash.Marks()) == 0 {
				continue
			}
			if info, err := vhd.Describe(file); err != nil || info.Kind != "dynamic" {
				return true
			}
		}
		return false
	}
	const none, ofGrowth = 0, 3
	r := durabletest.New()
	dropSync(r, none, func() { forge(t, r) })
	if forged(r) {
		t.Error("a guest's data passes for the footer")
	}
	r = durabletest.New()
	dropSync(r, ofGrowth, func() { forge(t, r) })
	if !forged(r) {
		t.Error("the test forges nothing")
	}
}

// forge writes what a fixed disk of one sector ends in.
func forge(t *testing.T, r *durabletest.Recorder) {
	t.Helper()
	path := filepath.Join(memoryDir(t), "small")
	small, err := vhd.Create(newFile(t, path), vhd.Options{SizeBytes: 512, Fixed: true})
	must(t, err)
	must(t, small.Close())
	file, err := os.ReadFile(path)
	must(t, err)
	s := start(t, r, false, vhd.Options{SizeBytes: 4 << 20, BlockBytes: 512 << 10})
	for _, block := range []int64{0, 3, 7} {
		_, err := s.image.WriteAt(bytes.Repeat(file[512:], 1024), block*(512<<10))
		must(t, err)
	}
	must(t, s.image.Flush())
}

func anyCrashFails(r *durabletest.Recorder, differencing bool) bool {
	for crash := range r.Crashes(durabletest.Options{}) {
		if checkCrash(crash, differencing) != nil {
			return true
		}
	}
	return false
}

// goOn opens the state for writing, writes on, and holds that too against what is promised.
func goOn(crash *durabletest.Crash, differencing bool) error {
	p := promisesOf(crash, differencing)
	i, err := openCrashed(crash.Dir(), differencing, durable.ReadWrite)
	if err != nil {
		if p.created {
			return err
		}
		return nil
	}
	r := rand.New(rand.NewPCG(uint64(crash.Position()), 4))
	stamps := make(map[int64]uint64)
	maps.Copy(stamps, p.flushed)
	for n := range uint64(6) {
		g, stamp := r.Int64N(i.Size()/grain), 1<<40+n
		crash.Mark(change{g, stamp})
		if _, err := i.WriteAt(content(stamp), g*grain); err != nil {
			return err
		}
		stamps[g] = stamp
		delete(p.may, g)
	}
	if err := errors.Join(i.Flush(), i.Close()); err != nil {
		return err
	}
	again, err := openCrashed(crash.Dir(), differencing, durable.ReadOnly)
	if err != nil {
		return err
	}
	p.flushed = stamps
	return p.check(again)
}

// askOracle lets another implementation read the state after Open mended it: 7zz, and its parent beside it when it is
// sealed.
func askOracle(t *testing.T, crash *durabletest.Crash, differencing bool) error {
	t.Helper()
	p := promisesOf(crash, differencing)
	i, err := openCrashed(crash.Dir(), differencing, durable.ReadWrite)
	if err != nil || !p.created {
		return nil
	}
	must(t, i.Close())
	directory := memoryDir(t)
	if layer, ok := i.(*vhd.Layer); ok {
		if layer.Parent() == (disk.Parent{}) {
			return nil
		}
		base, err := vhd.Create(newFile(t, filepath.Join(directory, layer.Parent().Name)),
			vhd.Options{SizeBytes: layer.Size()})
		must(t, err)
		must(t, base.SetIdentity(layer.Parent().Identity))
		must(t, base.Close())
	}
	file, err := crash.Dir().Open("disk", durable.ReadOnly)
	must(t, err)
	must(t, disktest.Export(filepath.Join(directory, "disk.vhd"), file))
	run(t, directory, "7zz", "e", "-y", "-tvhd", "-oout", "disk.vhd")
	got, err := os.ReadFile(filepath.Join(directory, "out", "disk.img"))
	must(t, err)
	for g := range p.flushed {
		if err := p.checkContent(g, got[g*grain:min((g+1)*grain, int64(len(got)))]); err != nil {
			return fmt.Errorf("as 7zz reads it: %w", err)
		}
	}
	return nil
}
