package durable_test

import (
	"os"
	"path/filepath"
	"testing"

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
