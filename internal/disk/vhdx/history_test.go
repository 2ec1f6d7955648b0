package vhdx_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/vhdx"
	"vmreplica/internal/durable"
)

// baseShapes are bases with blocks on both sides of a page of the BAT, and small ones.
var baseShapes = []shape{
	{Options: vhdx.Options{SizeBytes: 1030*mib + 1024, BlockBytes: mib}},
	{Options: vhdx.Options{SizeBytes: 20*mib + 1536, BlockBytes: mib}},
	{Options: vhdx.Options{SizeBytes: 1100 * mib, BlockBytes: 2 * mib, LogicalSectorSize: 4096}},
	{Options: vhdx.Options{SizeBytes: 5 << 40}},
	{Options: vhdx.Options{SizeBytes: 530*mib + 4096, BlockBytes: mib, Fixed: true}},
	{Options: vhdx.Options{SizeBytes: 70*mib + 4096, LogicalSectorSize: 4096}},
	{Options: vhdx.Options{SizeBytes: 512}},
	{Options: vhdx.Options{SizeBytes: 9000 * mib, BlockBytes: mib}},
}

// TestHistoriesOfBases plays random histories; libvhdi reads all of what they leave, and each of 7-Zip and QEMU a
// part.
func TestHistoriesOfBases(t *testing.T) {
	disktest.OneGoroutine(t)
	const batch, histories = 40, 360
	for from := 0; from < histories; from += batch {
		var jobs []libvhdiJob
		directory := memoryDir(t)
		for seed := from; seed < from+batch; seed++ {
			m := newModel(baseShapes[seed%len(baseShapes)])
			path := filepath.Join(directory, fmt.Sprint(seed))
			play(t, m, path, uint64(seed))
			jobs = append(jobs, job([]string{path}, m))
			if evenSectors(m) && (m.SizeBytes < 100*mib || m.SizeBytes < 2000*mib && seed < len(baseShapes)) {
				sevenZip(t, path, m) // it refuses, by mistake, an odd number of sectors
			}
			if m.LogicalSectorSize != 4096 && m.SizeBytes < 2000*mib && (!m.Fixed || seed < 2*len(baseShapes)) {
				qemu(t, path, m)
			}
		}
		libvhdi(t, jobs)
		must(t, os.RemoveAll(directory))
	}
}

func evenSectors(m *model) bool { return m.SizeBytes/int64(max(m.LogicalSectorSize, 512))%2 == 0 }

// play makes a file by a history, and checks it on the way, at the end, and opened anew.
func play(t *testing.T, m *model, path string, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	d, err := m.create(newFile(t, path))
	must(t, err)
	for range 24 {
		switch r.IntN(10) {
		case 0:
			must(t, d.Flush())
		case 1:
			must(t, d.Close())
			if d, err = m.open(openFile(t, path), durable.ReadWrite); err != nil {
				t.Fatal(err)
			}
			d.LimitPages(8)
		case 2:
			m.check(t, d)
		default:
			m.random(t, d, r)
		}
	}
	m.check(t, d)
	must(t, d.Close())
	clean(t, path)
	d, err = m.open(openFile(t, path), durable.ReadOnly)
	must(t, err)
	m.check(t, d)
	must(t, d.Close())
}

// clean asks Check and Describe of a file that was closed.
func clean(t testing.TB, path string) {
	t.Helper()
	file := openFile(t, path)
	defer file.Close()
	for finding, err := range vhdx.Check(file) {
		must(t, err)
		if finding.Severity != disk.Leaked {
			t.Errorf("%s: %+v", path, finding)
		}
	}
	info, err := vhdx.Describe(file)
	must(t, err)
	if info.Dirty {
		t.Errorf("%s has a log after it was closed", path)
	}
}

// TestHistoriesOfLayers plays histories on chains of two and three levels; 7-Zip reads them, and libvhdi those
// without zero blocks, which it reads through to the parent.
func TestHistoriesOfLayers(t *testing.T) {
	disktest.OneGoroutine(t)
	const histories = 140
	for seed := range uint64(histories) {
		directory := memoryDir(t)
		c := newChain(t, directory, seed)
		sevenZip(t, c.paths[0], c.models...)
		if !c.zeroBlocks {
			libvhdi(t, []libvhdiJob{job(c.paths, c.models...)})
		}
		must(t, os.RemoveAll(directory))
	}
}

// chain is a base and one or two layers. paths are the top's first, models the base's first.
type chain struct {
	paths      []string
	models     []*model
	zeroBlocks bool
}

func newChain(t *testing.T, directory string, seed uint64) *chain {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 2))
	sector := 512 << (3 * r.IntN(2))
	size := int64(3*mib + r.IntN(20)*mib + r.IntN(3)*2*sector)
	if seed%35 == 0 {
		size += 1022 * mib
	}
	c := &chain{zeroBlocks: seed%7 != 0}
	for level := range 2 + r.IntN(2) {
		s := shape{vhdx.Options{SizeBytes: size, LogicalSectorSize: sector, BlockBytes: mib << r.IntN(3)}, level > 0}
		m := newModel(s)
		m.last = uint64(level) << 32
		path := filepath.Join(directory, fmt.Sprint("level", level, ".vhdx"))
		c.add(t, m, path, r)
	}
	return c
}

func (c *chain) add(t *testing.T, m *model, path string, r *rand.Rand) {
	t.Helper()
	d, err := m.create(newFile(t, path))
	must(t, err)
	d.LimitPages(8)
	for range 30 {
		switch {
		case r.IntN(8) == 0:
			must(t, d.Flush())
		case c.zeroBlocks:
			m.random(t, d, r)
		default:
			first, count := m.pick(r)
			m.set(t, d, 0, first, count)
		}
	}
	if m.layer {
		must(t, d.(*vhdx.Layer).Seal(disk.Parent{
			Name: filepath.Base(c.paths[0]), Path: c.paths[0], Format: "vhdx", Identity: identityOf(t, c.paths[0])}))
	}
	m.check(t, d)
	must(t, d.Close())
	clean(t, path)
	d, err = m.open(openFile(t, path), durable.ReadOnly)
	must(t, err)
	m.check(t, d)
	must(t, d.Close())
	c.paths = append([]string{path}, c.paths...)
	c.models = append(c.models, m)
}

func identityOf(t testing.TB, path string) disk.Identity {
	t.Helper()
	file := openFile(t, path)
	defer file.Close()
	info, err := vhdx.Describe(file)
	must(t, err)
	return info.Identity
}
