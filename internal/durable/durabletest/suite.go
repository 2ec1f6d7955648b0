package durabletest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"testing"

	"vmreplica/internal/durable"
)

// TestDir checks that an implementation of durable.Dir and its files does what the contract says. open gives an
// empty directory.
func TestDir(t *testing.T, open func(t *testing.T) durable.Dir) {
	t.Run("names outside the tree are refused", func(t *testing.T) { testNames(t, open(t)) })
	t.Run("files are created once, opened, renamed and removed", func(t *testing.T) { testFiles(t, open(t)) })
	t.Run("directories are made with their parents", func(t *testing.T) { testDirectories(t, open(t)) })
	t.Run("a handle that is closed or read-only changes nothing", func(t *testing.T) { testHandles(t, open(t)) })
	t.Run("ranges outside what a file can have are refused", func(t *testing.T) { testRanges(t, open(t)) })
	t.Run("data is found and holes are passed over", func(t *testing.T) { testSeekData(t, open(t)) })
	t.Run("any history reads as a plain byte slice does", func(t *testing.T) {
		for seed := range uint64(20) {
			testHistory(t, open(t), seed)
		}
	})
}

func testNames(t *testing.T, dir durable.Dir) {
	for _, name := range []string{"", "/etc/passwd", "..", "../x", "a/../b", "a//b", "./a", "a/"} {
		t.Run(name, func(t *testing.T) {
			_, openErr := dir.Open(name, durable.ReadOnly)
			_, createErr := dir.Create(name)
			_, statErr := dir.Stat(name)
			_, listErr := dir.List(name)
			for i, err := range []error{
				openErr, createErr, statErr, listErr, dir.Mkdir(name), dir.Remove(name), dir.Rename(name, "b"),
				dir.Rename("b", name), dir.Sync(name),
			} {
				if !errors.Is(err, fs.ErrInvalid) {
					t.Errorf("operation %d answered %v", i, err)
				}
			}
		})
	}
}

func testFiles(t *testing.T, dir durable.Dir) {
	file := create(t, dir, "a")
	write(t, file, 0, []byte("content"))
	if _, err := dir.Create("a"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("creating it again answered %v", err)
	}
	must(t, dir.Rename("a", "b"))
	must(t, dir.Sync("."))
	if _, err := dir.Open("a", durable.ReadOnly); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opening the old name answered %v", err)
	}
	again, err := dir.Open("b", durable.ReadWrite)
	must(t, err)
	expect(t, again, []byte("content"))
	write(t, again, 7, []byte("!"))
	expect(t, file, []byte("content!"))
	must(t, dir.Remove("b"))
	expect(t, file, []byte("content!")) // an open file outlives its name
	for _, err := range []error{dir.Remove("b"), dir.Rename("b", "c")} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a missing name answered %v", err)
		}
	}
	if _, err := dir.Stat("b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("describing a missing name answered %v", err)
	}
	must(t, errors.Join(file.Sync(), file.Close(), again.Close()))
}

func testDirectories(t *testing.T, dir durable.Dir) {
	must(t, dir.Mkdir("a/b/c"))
	must(t, dir.Mkdir("a/b"))
	must(t, create(t, dir, "a/b/file").Close())
	names, err := dir.List("a/b")
	must(t, err)
	if !slices.Equal(names, []string{"c", "file"}) {
		t.Errorf("listed %v", names)
	}
	info, err := dir.Stat("a/b")
	must(t, err)
	if !info.IsDir() || info.Name() != "b" {
		t.Errorf("described as %v %s", info.Mode(), info.Name())
	}
	for what, err := range map[string]error{
		"a directory over a file": dir.Mkdir("a/b/file"), "removing a full one": dir.Remove("a/b"),
		"syncing a file as one": dir.Sync("a/b/file"),
	} {
		if err == nil {
			t.Errorf("%s is allowed", what)
		}
	}
	if _, err := dir.Open("a/b", durable.ReadOnly); !errors.Is(err, durable.ErrNotRegular) {
		t.Errorf("opening a directory answered %v", err)
	}
	if _, err := dir.Create("missing/file"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("creating without a parent answered %v", err)
	}
	must(t, errors.Join(dir.Remove("a/b/c"), dir.Sync("a/b"), dir.Sync("a"), dir.Sync(".")))
}

func testHandles(t *testing.T, dir durable.Dir) {
	file := create(t, dir, "a")
	write(t, file, 0, []byte("content"))
	reader, err := dir.Open("a", durable.ReadOnly)
	must(t, err)
	if _, err := reader.WriteAt([]byte("x"), 0); err == nil {
		t.Error("a read-only handle writes")
	}
	if err := reader.Truncate(1); err == nil {
		t.Error("a read-only handle truncates")
	}
	must(t, errors.Join(reader.Close(), file.Close()))
	_, writeErr := file.WriteAt([]byte("x"), 0)
	_, readErr := file.ReadAt(make([]byte, 1), 0)
	_, sizeErr := file.Size()
	for i, err := range []error{writeErr, readErr, sizeErr, file.Sync(), file.Punch(0, 1), file.Close()} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("operation %d on a closed file answered %v", i, err)
		}
	}
}

func testRanges(t *testing.T, dir durable.Dir) {
	file := create(t, dir, "a")
	defer file.Close()
	write(t, file, 0, []byte("content"))
	for name, change := range map[string]func(off, n int64) error{
		"punch": file.Punch, "zero": file.ZeroRange, "allocate": file.Allocate,
	} {
		for _, bad := range [][2]int64{{-1, 1}, {0, -1}, {1, 1<<63 - 1}} {
			if err := change(bad[0], bad[1]); !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%s of %v answered %v", name, bad, err)
			}
		}
		must(t, change(3, 0))
	}
	if _, _, err := file.SeekData(-1); err == nil {
		t.Error("data is sought before the start")
	}
	expect(t, file, []byte("content"))
}

func testSeekData(t *testing.T, dir durable.Dir) {
	file := create(t, dir, "a")
	defer file.Close()
	must(t, file.Truncate(64<<20))
	for _, off := range []int64{1 << 20, 40 << 20} {
		write(t, file, off, bytes.Repeat([]byte{1}, 64<<10))
	}
	must(t, file.Sync())
	covered := 0
	for off := int64(0); ; {
		start, end, err := file.SeekData(off)
		if err == io.EOF {
			break
		}
		must(t, err)
		if start < off || end <= start || end > 64<<20 {
			t.Fatalf("from %d found [%d, %d)", off, start, end)
		}
		for _, data := range []int64{1 << 20, 40 << 20} {
			if start <= data && data+64<<10 <= end {
				covered++
			}
		}
		off = end
	}
	if covered != 2 {
		t.Errorf("%d of 2 data ranges were found", covered)
	}
	if _, _, err := file.SeekData(64 << 20); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
}

// testHistory does random operations on a file and on a byte slice.
func testHistory(t *testing.T, dir durable.Dir, seed uint64) {
	const limit = 5 * pageSize
	random := rand.New(rand.NewPCG(seed, 1))
	file := create(t, dir, fmt.Sprintf("history-%d", seed))
	defer file.Close()
	var model []byte
	for range 60 {
		off := random.Int64N(limit)
		n := random.Int64N(limit - off)
		if random.IntN(2) == 0 {
			off, n = off/pageSize*pageSize, (n+pageSize-1)/pageSize*pageSize
		}
		model = historyStep(t, random, file, model, off, n)
		expect(t, file, model)
	}
}

func historyStep(t *testing.T, random *rand.Rand, file durable.File, model []byte, off, n int64) []byte {
	switch random.IntN(6) {
	case 0, 1:
		data := bytes.Repeat([]byte{byte(1 + random.IntN(255))}, int(n))
		write(t, file, off, data)
		if missing := off + n - int64(len(model)); n > 0 && missing > 0 {
			model = append(model, make([]byte, missing)...)
		}
		copy(model[min(off, int64(len(model))):], data)
	case 2:
		must(t, file.Punch(off, n))
		clear(model[min(off, int64(len(model))):min(off+n, int64(len(model)))])
	case 3:
		must(t, file.ZeroRange(off, n))
		clear(model[min(off, int64(len(model))):min(off+n, int64(len(model)))])
	case 4:
		if err := file.Allocate(off, n); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			t.Fatal(err)
		}
	case 5:
		must(t, file.Truncate(off))
		model = append(model, make([]byte, max(0, off-int64(len(model))))...)[:off]
	}
	return model
}

func create(t *testing.T, dir durable.Dir, name string) durable.File {
	t.Helper()
	file, err := dir.Create(name)
	must(t, err)
	return file
}

func write(t *testing.T, file durable.File, off int64, data []byte) {
	t.Helper()
	n, err := file.WriteAt(data, off)
	must(t, err)
	if n != len(data) {
		t.Fatalf("wrote %d of %d bytes", n, len(data))
	}
}

func expect(t *testing.T, file durable.File, want []byte) {
	t.Helper()
	size, err := file.Size()
	must(t, err)
	if size != int64(len(want)) {
		t.Fatalf("size %d, want %d", size, len(want))
	}
	got := make([]byte, len(want)+1)
	n, err := file.ReadAt(got, 0)
	if n != len(want) || err != io.EOF {
		t.Fatalf("read %d bytes and %v, want %d and EOF", n, err, len(want))
	}
	if !bytes.Equal(got[:n], want) {
		t.Fatalf("content differs")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
