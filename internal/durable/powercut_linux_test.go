package durable_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
)

// What was promised is there after the power of a real filesystem was cut, and what was not synced is gone: the
// volume does lose things.
func TestPromisesHoldWhenThePowerIsCut(t *testing.T) {
	volume := durabletest.NewVolume(t, 32<<20)
	for i := range 5 {
		dir, err := durable.OpenDir(volume.Path)
		check(t, err)
		check(t, dir.Mkdir("a/b"))
		check(t, durable.WriteFile(dir, "a/b/record", contents(i)))
		open, err := dir.Open("a/b/record", durable.ReadWrite)
		check(t, err)
		check(t, os.WriteFile(filepath.Join(volume.Path, "unsynced"), []byte("lost"), 0o600))
		volume.Cut()
		if _, err := open.WriteAt([]byte("x"), 0); err == nil {
			if first := open.Sync(); first == nil || open.Sync() != first {
				t.Error("a sync without power succeeds, or its error is not final")
			}
		}
		check(t, open.Close())
		check(t, dir.Close())
		volume.Restore()
		dir, err = durable.OpenDir(volume.Path)
		check(t, err)
		found, err := readAll(dir, "a/b/record")
		check(t, err)
		if string(found) != string(contents(i)) {
			t.Errorf("cut %d: found %d bytes of another content", i, len(found))
		}
		check(t, dir.Close())
		if _, err := os.Stat(filepath.Join(volume.Path, "unsynced")); err == nil {
			t.Errorf("cut %d: the volume lost nothing", i)
		}
	}
}

// A file's times are there after the power was cut when they were synced, and only then.
func TestSyncedTimesHoldWhenThePowerIsCut(t *testing.T) {
	volume := durabletest.NewVolume(t, 32<<20)
	path := filepath.Join(volume.Path, "base")
	check(t, os.WriteFile(path, make([]byte, 1<<20), 0o600))
	for _, c := range []struct {
		name string
		sync func(durable.File) error
		kept bool
	}{
		{"times", durable.SyncTimes, true},
		{"content", durable.File.Sync, false},
		{"times again", durable.SyncTimes, true},
	} {
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		check(t, err)
		check(t, file.Sync())
		check(t, file.Close())
		dir, err := durable.OpenDir(volume.Path)
		check(t, err)
		open, err := dir.Open("base", durable.ReadWrite)
		check(t, err)
		time.Sleep(20 * time.Millisecond) // a file's times move by ticks of the kernel's timer
		_, err = open.WriteAt([]byte(c.name), 4096)
		check(t, err)
		check(t, c.sync(open))
		before, err := os.Stat(path)
		check(t, err)
		volume.Cut()
		check(t, open.Close())
		check(t, dir.Close())
		volume.Restore()
		after, err := os.Stat(path)
		check(t, err)
		if kept := before.ModTime().Equal(after.ModTime()); kept != c.kept {
			t.Errorf("%s: the time was %v and is %v", c.name, before.ModTime(), after.ModTime())
		}
	}
}
