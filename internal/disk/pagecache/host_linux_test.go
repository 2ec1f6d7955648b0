package pagecache

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"vmreplica/internal/durable"
)

const hostFileBytes = 256 << 20

// TestTheHostsCache reads a file on a filesystem of a disk once when it is cold and once when it is warm.
func TestTheHostsCache(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	must(t, os.WriteFile(path, make([]byte, hostFileBytes), 0o600))
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	must(t, file.Sync())
	host := hostCache{fd: file.Fd()}
	host.drop(0, hostFileBytes)
	if !host.cold(0, hostFileBytes) {
		t.Fatal("the page cache keeps a file that was dropped: the test needs a directory on a disk (TMPDIR)")
	}
	readOnce(t, path)
	if !host.cold(0, hostFileBytes) {
		t.Error("what was cold is cached after the pass")
	}
	readAll(t, durable.NewFile(file))
	readOnce(t, path)
	if host.cold(0, hostFileBytes) {
		t.Error("what was warm is gone after the pass")
	}
	must(t, file.Close())
}

// TestAWarmTailStays reads warm files whose last window is short, or mostly hole, which the cache can hold little of.
func TestAWarmTailStays(t *testing.T) {
	for name, size := range map[string]int64{"a short file": 20 << 20, "a short end": 84 << 20, "a hole": 640 << 20} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "image")
			must(t, os.WriteFile(path, make([]byte, min(size, 84<<20)), 0o600))
			must(t, os.Truncate(path, size))
			before := residentPages(t, path)
			readOnce(t, path)
			if after := residentPages(t, path); after < before {
				t.Errorf("%d pages were cached and %d are", before, after)
			}
		})
	}
}

func residentPages(t *testing.T, path string) int {
	t.Helper()
	file, err := os.Open(path)
	must(t, err)
	defer file.Close()
	cached, _, err := hostCache{fd: file.Fd()}.resident(0, 20<<20)
	must(t, err)
	if cached == 0 {
		t.Fatal("nothing of what was written is cached")
	}
	return cached
}

// readOnce reads through a pass of its own.
func readOnce(t *testing.T, path string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	must(t, unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_SEQUENTIAL))
	once := Once(durable.NewFile(file))
	readAll(t, once)
	must(t, once.Close())
}

func readAll(t *testing.T, f durable.File) {
	t.Helper()
	buffer := make([]byte, 1<<20)
	size, err := f.Size()
	must(t, err)
	for off := int64(0); off < size; off += int64(len(buffer)) {
		_, err := f.ReadAt(buffer, off)
		must(t, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
