package command_test

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAnExportTakesNoMoreSpaceThanItsData(t *testing.T) {
	a := newAgent(t, "replica")
	holds(a, whole, "root")
	file := filepath.Join(t.TempDir(), "web01.raw")
	a.run("export", "web01", file).expect(t, 0, "", "")
	var about unix.Stat_t
	if err := unix.Stat(file, &about); err != nil || about.Blocks*512 > 1<<20 || about.Mode&0o077 != 0 {
		t.Errorf("%d bytes, mode %o, %v", about.Blocks*512, about.Mode, err)
	}
}
