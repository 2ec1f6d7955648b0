package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
)

func openDir(t *testing.T, path string) durable.Dir {
	t.Helper()
	dir, err := durable.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dir.Close(); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestHostDirectory(t *testing.T) {
	durabletest.TestDir(t, func(t *testing.T) durable.Dir { return openDir(t, t.TempDir()) })
}

// tmpfs knows no zeroing of ranges, so there the zeros are written.
func TestHostDirectoryOnTmpfs(t *testing.T) {
	path, err := os.MkdirTemp("/dev/shm", "durable")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(path)
	durabletest.TestDir(t, func(t *testing.T) durable.Dir {
		below, err := os.MkdirTemp(path, "dir")
		if err != nil {
			t.Fatal(err)
		}
		return openDir(t, below)
	})
}

func TestOpenTakesOnlyARegularFileOfItsOwn(t *testing.T) {
	path := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	check(t, os.WriteFile(outside, []byte("secret"), 0o600))
	check(t, os.WriteFile(filepath.Join(path, "file"), []byte("content"), 0o600))
	check(t, os.WriteFile(filepath.Join(path, "first"), nil, 0o600))
	check(t, os.Link(filepath.Join(path, "first"), filepath.Join(path, "second")))
	check(t, os.Symlink("file", filepath.Join(path, "link")))
	check(t, os.Symlink(outside, filepath.Join(path, "away")))
	check(t, os.Symlink(filepath.Dir(outside), filepath.Join(path, "leave")))
	check(t, syscall.Mkfifo(filepath.Join(path, "pipe"), 0o600))
	dir := openDir(t, path)
	for _, name := range []string{"first", "second", "link", "away", "pipe"} {
		if _, err := dir.Open(name, durable.ReadWrite); !errors.Is(err, durable.ErrNotRegular) {
			t.Errorf("opening %s answered %v", name, err)
		}
	}
	if _, err := dir.Open("leave/outside", durable.ReadOnly); err == nil {
		t.Error("a link led out of the tree")
	}
	if _, err := dir.Create("away"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("creating over a link answered %v", err)
	}
	file, err := dir.Open("file", durable.ReadOnly)
	check(t, err)
	check(t, file.Close())
}

func TestHostFilesBelongToTheirUserAlone(t *testing.T) {
	dir := openDir(t, t.TempDir())
	check(t, dir.Mkdir("a"))
	file, err := dir.Create("a/b")
	check(t, err)
	defer file.Close()
	for name, want := range map[string]fs.FileMode{"a": fs.ModeDir | 0o700, "a/b": 0o600} {
		info, err := dir.Stat(name)
		check(t, err)
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", name, info.Mode(), want)
		}
	}
}

func TestErrorsNameTheWholePath(t *testing.T) {
	dir := openDir(t, t.TempDir())
	_, err := dir.Open("missing", durable.ReadOnly)
	if err == nil || !strings.Contains(err.Error(), dir.Path("missing")) {
		t.Errorf("the error is %v", err)
	}
}

func TestAllocatedSpaceIsTakenAndPunchedSpaceIsGivenBack(t *testing.T) {
	dir := openDir(t, t.TempDir())
	file, err := dir.Create("a")
	check(t, err)
	defer file.Close()
	blocks := func() int64 {
		t.Helper()
		check(t, file.Sync())
		info, err := dir.Stat("a")
		check(t, err)
		return info.Sys().(*syscall.Stat_t).Blocks * 512
	}
	check(t, file.Allocate(0, 1<<20))
	if size, _ := file.Size(); size != 0 || blocks() < 1<<20 {
		t.Errorf("after allocating: size %d, %d bytes taken", size, blocks())
	}
	check(t, file.Truncate(1<<20))
	check(t, file.ZeroRange(0, 1<<20))
	if blocks() < 1<<20 {
		t.Errorf("after zeroing: %d bytes taken", blocks())
	}
	check(t, file.Punch(0, 1<<20))
	if blocks() >= 1<<20 {
		t.Errorf("after punching: %d bytes taken", blocks())
	}
	if free, err := dir.Free(); err != nil || free <= 0 {
		t.Errorf("free space %d, %v", free, err)
	}
}

func TestTheFirstSyncErrorOfAFileIsFinal(t *testing.T) {
	reader, writer, err := os.Pipe() // a pipe cannot be synced
	check(t, err)
	defer reader.Close()
	file := durable.NewFile(writer)
	defer file.Close()
	first := file.Sync()
	if first == nil {
		t.Fatal("a pipe was synced")
	}
	if again := file.Sync(); again != first {
		t.Errorf("the second sync answered %v anew", again)
	}
}
