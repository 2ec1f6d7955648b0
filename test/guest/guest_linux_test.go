package guest_test

import (
	"os"
	"path/filepath"
	"testing"

	"vmreplica/test/guest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const size = 96 << 20

// images are new raw files.
func images(t *testing.T, count int) (paths []string) {
	dir := t.TempDir()
	for i := range count {
		path := filepath.Join(dir, string(rune('a'+i))+".raw")
		must(t, os.WriteFile(path, nil, 0o600))
		must(t, os.Truncate(path, size))
		paths = append(paths, path)
	}
	return paths
}

func plain(t *testing.T, paths ...string) guest.Lines {
	var disks []guest.Disk
	for _, path := range paths {
		disks = append(disks, guest.Raw(path))
	}
	return guest.Disks(t, disks...)
}

// TestAGuestOutlivesAPowerCut is a test of the guest itself: what it says that it has committed is there, and a row or a
// file that is not is found.
func TestAGuestOutlivesAPowerCut(t *testing.T) {
	t.Parallel()
	paths := images(t, 2)
	guest.Format(t, paths...)
	g := guest.Start(t, guest.Write, plain(t, paths...))
	g.AwaitRows(40)
	g.Kill()
	newest := g.Committed()
	found := guest.Examine(t, guest.Disks(t, guest.Copy(t, paths[0], "raw"), guest.Copy(t, paths[1], "raw")))
	if fault := found.Fault(newest); fault != "" {
		t.Fatal(fault)
	}
	if fault := found.Fault(found.Newest + 1); fault == "" {
		t.Error("a row that is not there was not missed")
	}
	older := images(t, 1)
	guest.Format(t, older...)
	if fault := guest.Examine(t, plain(t, paths[0], older[0])).Fault(0); fault == "" {
		t.Error("files that are not there were not missed")
	}
}
