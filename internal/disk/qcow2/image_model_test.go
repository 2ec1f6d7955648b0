package qcow2_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/durable"
)

const sector = 512

// sectors is what an image must hold: by sector the stamp that its bytes repeat, 0 for zeros.
type sectors struct {
	stamps []uint64
	last   uint64
}

func newSectors(size int64) *sectors { return &sectors{stamps: make([]uint64, size/sector)} }

// set writes, zeroes or unmaps sectors on d and here, as what says: 0, 1 or 2.
func (s *sectors) set(t testing.TB, d disk.Disk, what int, first, count int64) {
	t.Helper()
	var p []byte
	for at := first; at < first+count; at++ {
		s.stamps[at] = 0
		if what == 0 {
			s.last++
			s.stamps[at] = s.last
			p = append(p, stamped(s.last)...)
		}
	}
	switch what {
	case 0:
		_, err := d.WriteAt(p, first*sector)
		must(t, err)
	case 1:
		must(t, d.Zero(first*sector, count*sector))
	default:
		must(t, d.Unmap(first*sector, count*sector))
	}
}

func stamped(stamp uint64) []byte {
	return bytes.Repeat(binary.BigEndian.AppendUint64(nil, stamp), sector/8)
}

// pick is a range of sectors, mostly short, and near the ends of tables as often as elsewhere.
func (s *sectors) pick(r *rand.Rand) (first, count int64) {
	all := int64(len(s.stamps))
	first = r.Int64N(all)
	if r.IntN(2) == 0 {
		first = max(0, min(all-1, first-first%64+r.Int64N(3)-1))
	}
	longest := []int64{4, 40, 400, 3000}[r.IntN(4)]
	return first, 1 + r.Int64N(min(longest, all-first))
}

func (s *sectors) bytes() []byte {
	var p []byte
	for _, stamp := range s.stamps {
		p = append(p, stamped(stamp)...)
	}
	return p
}

// check compares content, and extents with content.
func (s *sectors) check(t testing.TB, d disk.Disk) {
	t.Helper()
	got, want := make([]byte, d.Size()), s.bytes()
	_, err := d.ReadAt(got, 0)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Fatal("the content differs")
	}
	next := int64(0)
	for e, err := range d.Extents(0, d.Size()) {
		must(t, err)
		if e.Offset != next || e.Length <= 0 {
			t.Fatalf("%+v where %d follows", e, next)
		}
		next = e.End()
		if e.Kind != disk.Data && !bytes.Equal(want[e.Offset:next], make([]byte, e.Length)) {
			t.Fatalf("%+v is data", e)
		}
	}
	if next != d.Size() {
		t.Fatalf("the extents end at %d of %d", next, d.Size())
	}
}

// TestImageHistories plays random histories, and has QEMU read and check what each leaves.
func TestImageHistories(t *testing.T) {
	disktest.OneGoroutine(t)
	directory := memoryDir(t)
	for seed := range uint64(500) {
		cluster := clusterSizes[seed%4]
		size := []int64{512, 64<<10 + 512, 700<<10 + 1536, 5 << 20}[seed/4%4]
		t.Run(fmt.Sprintf("seed %d, %d bytes in clusters of %d", seed, size, cluster), func(t *testing.T) {
			path := filepath.Join(directory, "image")
			playImage(t, path, seed, qcow2.ImageOptions{SizeBytes: size, ClusterBytes: cluster})
			must(t, os.Remove(path))
		})
	}
}

func playImage(t *testing.T, path string, seed uint64, options qcow2.ImageOptions) {
	r := rand.New(rand.NewPCG(seed, 21))
	i, s := createImage(t, path, options), newSectors(options.SizeBytes)
	for range 24 {
		switch r.IntN(12) {
		case 0:
			must(t, i.Flush())
		case 1:
			must(t, i.Close())
			i = openImage(t, path, durable.ReadWrite)
		default:
			first, count := s.pick(r)
			s.set(t, i, max(r.IntN(6)-3, 0), first, count)
		}
	}
	s.check(t, i)
	must(t, i.Close())
	s.check(t, openImage(t, path, durable.ReadOnly))
	askQEMUAbout(t, path, s)
}

// askQEMUAbout has QEMU read the image, and expects not even a leak.
func askQEMUAbout(t *testing.T, path string, s *sectors) {
	t.Helper()
	f := &foreign{fixture: fixture{directory: filepath.Dir(path)}, path: path, bytes: s.bytes()}
	f.equal(t)
	f.clean(t)
}
