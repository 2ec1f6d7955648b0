package qcow2_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
)

// TestSpaceOfScatteredWrites writes 1 % of a disk, in 4 KiB here and there: the file takes little more than the
// data, because nothing around it is copied.
func TestSpaceOfScatteredWrites(t *testing.T) {
	const size, share = 2 << 30, 100
	path := filepath.Join(t.TempDir(), "overlay")
	o := create(t, path, size)
	r := rand.New(rand.NewPCG(1, 1))
	for _, g := range r.Perm(size / grain)[:size/grain/share] {
		_, err := o.WriteAt(content(uint64(g)+1), int64(g)*grain)
		must(t, err)
	}
	must(t, o.Flush())
	data, err := o.DataBytes()
	must(t, err)
	allocated, known := o.AllocatedBytes()
	if want := int64(size / grain / share * grain); data != want || !known {
		t.Fatalf("%d bytes of data, want %d; allocated known: %t", data, want, known)
	}
	if ratio := float64(allocated) / float64(data); ratio > 1.10 {
		t.Errorf("%d bytes of data take %d bytes: %.3f of them", data, allocated, ratio)
	} else {
		t.Logf("%d bytes of data take %d bytes: %.3f of them", data, allocated, ratio)
	}
	check(t, path, 0)
}

// TestHugeDisksAreCheap writes at both ends of a disk.
func TestHugeDisksAreCheap(t *testing.T) {
	for _, size := range []int64{16 << 40, disk.MaxSize, disk.MaxSize - 512} {
		path := filepath.Join(memoryDir(t), "overlay")
		start := time.Now()
		o, m := create(t, path, size), newModel(size)
		m.set(t, o, 0, 0, 3)
		m.set(t, o, 0, (size-1)/grain-1, 2)
		must(t, o.Close())
		o = open(t, path, durable.ReadWrite)
		m.check(t, o)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%d bytes: took %v", size, took)
		}
		if allocated, known := o.AllocatedBytes(); !known || allocated > 1<<20 {
			t.Errorf("%d bytes: the file takes %d bytes (known: %t)", size, allocated, known)
		}
		check(t, path, 0)
	}
}

// TestZeroOfATebibyte costs an L2 table for each GiB and no more memory than the limit.
func TestZeroOfATebibyte(t *testing.T) {
	const size, zeroed = 3 << 40, 1 << 40
	path := filepath.Join(memoryDir(t), "overlay")
	o := create(t, path, size)
	start := time.Now()
	must(t, o.Zero(1<<40+grain, zeroed))
	must(t, o.Flush())
	t.Logf("took %v", time.Since(start))
	if now, limit := o.SlicesInMemory(); now > limit {
		t.Errorf("%d slices in memory, the limit is %d", now, limit)
	}
	if allocated, _ := o.AllocatedBytes(); allocated > zeroed/8192+1<<20 {
		t.Errorf("the zeros take %d bytes", allocated)
	}
	want := []disk.Extent{{Offset: 0, Length: 1<<40 + grain, Kind: disk.Absent},
		{Offset: 1<<40 + grain, Length: zeroed, Kind: disk.Zero},
		{Offset: 2<<40 + grain, Length: 1<<40 - grain, Kind: disk.Absent}}
	i := 0
	for e, err := range o.Extents(0, size) {
		must(t, err)
		if i >= len(want) || e != want[i] {
			t.Errorf("extent %d is %+v", i, e)
		}
		i++
	}
	check(t, path, 0)
}

// TestUnmapGivesBackSpace unmaps data, and keeps what lies around it.
func TestUnmapGivesBackSpace(t *testing.T) {
	o, m := create(t, filepath.Join(t.TempDir(), "overlay"), 64<<20), newModel(64<<20)
	m.set(t, o, 0, 0, 8192)
	must(t, o.Flush())
	before, _ := o.AllocatedBytes()
	m.set(t, o, 1, 5, 1000)
	must(t, o.Flush())
	if zeroed, _ := o.AllocatedBytes(); zeroed < before {
		t.Errorf("Zero gave back %d bytes", before-zeroed)
	}
	m.set(t, o, 0, 5, 1000)
	m.set(t, o, 2, 1001, 6001)
	must(t, o.Flush())
	if after, _ := o.AllocatedBytes(); before-after != 6001*grain {
		t.Errorf("%d bytes were unmapped, the file gave back %d", 6001*grain, before-after)
	}
	m.check(t, o)
}

// TestRefcountBlocksFollow places clusters on both sides of every kind of edge of what a refcount block counts.
func TestRefcountBlocksFollow(t *testing.T) {
	const counted = 65536 * cluster
	for back := range int64(6) {
		t.Run(fmt.Sprint(back), func(t *testing.T) {
			path := filepath.Join(memoryDir(t), "overlay")
			o, m := create(t, path, 8<<30), newModel(8<<30)
			must(t, o.Close())
			must(t, os.Truncate(path, counted-back*cluster))
			for round := range int64(3) {
				o = open(t, path, durable.ReadWrite)
				for i := range int64(3) {
					m.set(t, o, 0, (3*i+round)<<17+i*77, 2)
					must(t, o.Flush())
				}
				must(t, o.Close())
				check(t, path, 0)
			}
			m.check(t, open(t, path, durable.ReadOnly))
		})
	}
}

// check lets QEMU check the file; leaks is 3 where leaked clusters are allowed.
func check(t testing.TB, path string, leaks int) {
	t.Helper()
	out, err := exec.Command("qemu-img", "check", "-f", "qcow2", path).CombinedOutput()
	if exit, ok := err.(*exec.ExitError); ok && leaks != 0 && exit.ExitCode() == leaks {
		return
	}
	if err != nil {
		t.Fatalf("qemu-img check: %v\n%s", err, out)
	}
}
