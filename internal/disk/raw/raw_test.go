package raw_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/disk/raw"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

// filesystems are the directories that the tests run in: one on a disk, one in memory, which has holes but no
// operation that zeroes a range.
func filesystems(t *testing.T) map[string]string {
	memory, err := os.MkdirTemp("/dev/shm", "raw")
	if err != nil {
		t.Fatalf("a tmpfs at /dev/shm is needed: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(memory) })
	return map[string]string{"disk": t.TempDir(), "tmpfs": memory}
}

func TestConformance(t *testing.T) {
	for name, directory := range filesystems(t) {
		t.Run(name, func(t *testing.T) {
			paths := map[disk.Disk]string{}
			disktest.Base(t, disktest.Subject{
				Open: func(t *testing.T, size int64) disk.Disk {
					path := filepath.Join(directory, strings.NewReplacer("/", "_", " ", "_").Replace(t.Name()))
					makeFile(t, path, size)
					d := open(t, path, imagelock.Write)
					paths[d] = path
					return d
				},
				Reopen: func(t *testing.T, d disk.Disk) disk.Disk {
					must(t, d.Close())
					again := open(t, paths[d], imagelock.Write)
					paths[again] = paths[d]
					return again
				},
				Holes: true,
			})
		})
	}
}

// TestExtentsAgreeWithQEMU lays random holes and compares with what qemu-img finds.
func TestExtentsAgreeWithQEMU(t *testing.T) {
	const size = 8 << 20
	for name, directory := range filesystems(t) {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(4) {
				path := filepath.Join(directory, fmt.Sprint("map", seed))
				makeFile(t, path, size)
				d := open(t, path, imagelock.Write)
				random := rand.New(rand.NewPCG(seed, 1))
				for range 40 {
					off := random.Int64N(size/4096) * 4096
					n := min(size-off, (1+random.Int64N(40))*4096)
					if random.IntN(3) == 0 {
						must(t, d.Unmap(off, n))
					} else if _, err := d.WriteAt(slices.Repeat([]byte{7}, int(n)), off); err != nil {
						t.Fatal(err)
					}
				}
				var data []string
				for e := range joined(t, d, 0, size) {
					if e.Kind == disk.Data {
						data = append(data, fmt.Sprintf("%d+%d", e.Offset, e.Length))
					}
				}
				must(t, d.Close())
				if want := mapped(t, path); !slices.Equal(data, want) {
					t.Errorf("seed %d: data at %v, qemu-img says %v", seed, data, want)
				}
			}
		})
	}
}

func TestASizeThatNoDiskHasIsRefused(t *testing.T) {
	for _, size := range []int64{0, 1, 511, 513, 1<<20 + 100} {
		path := filepath.Join(t.TempDir(), "image")
		makeFile(t, path, size)
		_, err := raw.Open(hostFile(t, path, os.O_RDONLY), raw.Options{Path: path})
		if found := failure.Find(err); found.Reason != failure.ReasonImageUnreadable ||
			!strings.Contains(err.Error(), fmt.Sprintf("%d bytes", size)) || !strings.Contains(err.Error(), path) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	path := filepath.Join(t.TempDir(), "image")
	makeFile(t, path, 4096+512)
	if _, err := raw.Open(hostFile(t, path, os.O_RDONLY), raw.Options{Path: path, SectorSize: 4096}); err == nil {
		t.Error("a size that does not divide into sectors was accepted")
	}
	if _, err := raw.Open(hostFile(t, path, os.O_RDONLY), raw.Options{Path: path, SectorSize: 520}); err == nil {
		t.Error("a sector of 520 bytes was accepted")
	}
}

func TestAHugeSparseImage(t *testing.T) {
	directory, err := os.MkdirTemp("/dev/shm", "raw")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(directory) })
	path := filepath.Join(directory, "image")
	makeFile(t, path, disk.MaxSize)
	d := open(t, path, imagelock.Write)
	const far = disk.MaxSize - 4096
	if _, err := d.WriteAt([]byte("the end"), far); err != nil {
		t.Fatal(err)
	}
	extents := slices.Collect(joined(t, d, 0, disk.MaxSize))
	want := []disk.Extent{{Offset: 0, Length: far, Kind: disk.Unmapped}, {Offset: far, Length: 4096, Kind: disk.Data}}
	if !slices.Equal(extents, want) {
		t.Errorf("got %+v", extents)
	}
	must(t, d.Close())
	must(t, os.Truncate(path, disk.MaxSize+512))
	if _, err := raw.Open(hostFile(t, path, os.O_RDONLY), raw.Options{Path: path}); err == nil {
		t.Error("more than 64 TiB were accepted")
	}
}

func TestADiskOpenedForReadingIsNotChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	makeFile(t, path, 4096)
	d := open(t, path, imagelock.Read)
	_, err := d.WriteAt([]byte{1}, 0)
	for call, err := range map[string]error{"WriteAt": err, "Zero": d.Zero(0, 512), "Unmap": d.Unmap(0, 512)} {
		if err == nil {
			t.Errorf("%s was accepted", call)
		}
	}
	must(t, d.Flush())
}

func TestAnImageCutShortIsNotTakenForZeros(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	makeFile(t, path, 1<<20)
	d := open(t, path, imagelock.Read)
	must(t, os.Truncate(path, 64<<10))
	if _, err := d.ReadAt(make([]byte, 4096), 512<<10); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("reading behind the end: %v", err)
	}
	var found error
	for _, err := range d.Extents(0, 1<<20) {
		found = err
	}
	if !errors.Is(found, io.ErrUnexpectedEOF) {
		t.Errorf("the extents end with %v", found)
	}
}

func open(t *testing.T, path string, access imagelock.Access) *raw.Disk {
	t.Helper()
	flags := os.O_RDONLY
	if access == imagelock.Write {
		flags = os.O_RDWR
	}
	d, err := raw.Open(hostFile(t, path, flags), raw.Options{Path: path, Access: access})
	must(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

func hostFile(t *testing.T, path string, flags int) durable.File {
	t.Helper()
	file, err := os.OpenFile(path, flags, 0)
	must(t, err)
	return durable.NewFile(file)
}

func makeFile(t *testing.T, path string, size int64) {
	t.Helper()
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, size))
}

// joined is the extents with neighbours of one kind made one.
func joined(t *testing.T, d *raw.Disk, off, n int64) func(func(disk.Extent) bool) {
	return func(yield func(disk.Extent) bool) {
		var pending disk.Extent
		for e, err := range d.Extents(off, n) {
			must(t, err)
			if pending.Kind == e.Kind {
				pending.Length += e.Length
				continue
			}
			if pending.Length > 0 && !yield(pending) {
				return
			}
			pending = e
		}
		yield(pending)
	}
}

// mapped is where qemu-img finds data.
func mapped(t *testing.T, path string) []string {
	t.Helper()
	output, err := exec.Command("qemu-img", "map", "-f", "raw", path).Output()
	if err != nil {
		t.Fatalf("qemu-img is needed: %v", err)
	}
	var found []string
	for _, line := range strings.Split(strings.TrimSpace(string(output)), "\n")[1:] {
		var off, n int64
		if _, err := fmt.Sscanf(line, "%v %v", &off, &n); err != nil {
			t.Fatalf("qemu-img map said %q: %v", line, err)
		}
		found = append(found, fmt.Sprintf("%d+%d", off, n))
	}
	return found
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
