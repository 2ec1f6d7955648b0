package storage

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vmreplica/agent-replica/chain"
	"vmreplica/internal/disk"
	"vmreplica/internal/failure"
)

func openTest(t *testing.T) (*Storage, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, dir
}

func reason(err error) string {
	if err == nil {
		return ""
	}
	return failure.Find(err).Reason
}

func wantReason(t *testing.T, what string, err error, want string) {
	t.Helper()
	if reason(err) != want {
		t.Errorf("%s: reason %q (%v), want %q", what, reason(err), err, want)
	}
}

func TestABaseIsMadeOnceAndSparse(t *testing.T) {
	s, dir := openTest(t)
	const size = 1 << 40
	if err := s.CreateBase(chain.Base{File: "p/web01/root"}, size, 512, false); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "p/web01/root"))
	if err != nil || info.Size() != size || info.Mode().Perm() != 0o600 {
		t.Fatalf("made %v, %v", info, err)
	}
	if bytes, err := s.Allocated("p/web01/root"); err != nil || bytes > 1<<20 {
		t.Errorf("a sparse base takes %d bytes, %v", bytes, err)
	}
	wantReason(t, "a base without content of somebody else", s.CreateBase(chain.Base{File: "p/web01/root"}, size, 512, false), failure.ReasonBaseExists)
	wantReason(t, "something", s.Vacant("p/web01/root"), failure.ReasonBaseExists)
	if err := s.CreateBase(chain.Base{File: "p/web01/root"}, size, 512, true); err != nil {
		t.Errorf("an empty base that an interrupted creation left: %v", err)
	}
	base, err := s.OpenBase(chain.Base{File: "p/web01/root"}, 512)
	if err != nil {
		t.Fatal(err)
	}
	wantReason(t, "a base in use", s.CreateBase(chain.Base{File: "p/web01/root"}, size, 512, true), failure.ReasonImageInUse)
	if _, err := base.WriteAt([]byte{1}, 1<<30); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(base.Flush(), base.Close()); err != nil {
		t.Fatal(err)
	}
	err = s.CreateBase(chain.Base{File: "p/web01/root"}, size, 512, true)
	wantReason(t, "a base with content", err, failure.ReasonBaseExists)
	if !strings.Contains(err.Error(), filepath.Join(dir, "p/web01/root")) {
		t.Errorf("%q does not name the path", err)
	}
	wantReason(t, "another size", s.CreateBase(chain.Base{File: "p/web01/root"}, size*2, 512, true), failure.ReasonBaseExists)
}

func TestAHalfMadeBaseIsCompleted(t *testing.T) {
	s, dir := openTest(t)
	if err := os.MkdirAll(filepath.Join(dir, "p/web01"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "p/web01/root"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.CreateBase(chain.Base{File: "p/web01/root"}, 1<<20, 512, true); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "p/web01/root")); err != nil || info.Size() != 1<<20 {
		t.Errorf("left %v, %v", info, err)
	}
}

func TestWhatIsMissingIsNamed(t *testing.T) {
	s, dir := openTest(t)
	for what, call := range map[string]func() error{
		"base":  func() error { _, err := s.OpenBase(chain.Base{File: "p/web01/gone"}, 512); return err },
		"layer": func() error { _, err := s.OpenLayer(chain.Layer{File: "p/web01/gone"}); return err },
		"stamp": func() error { _, err := s.Stamp(chain.Base{File: "p/web01/gone"}); return err },
		"file":  func() error { return s.Exists("p/web01/gone") },
	} {
		err := call()
		wantReason(t, what, err, failure.ReasonBaseMissing)
		if !strings.Contains(err.Error(), filepath.Join(dir, "p/web01/gone")) {
			t.Errorf("%s: %q does not name the path", what, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("opening what is missing made %v, %v", entries, err)
	}
}

func TestNothingOutsideIsOpened(t *testing.T) {
	s, dir := openTest(t)
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(outside, filepath.Join(dir, "second-name")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "second-name", "../secret", outside, "a/../../secret"} {
		if base, err := s.OpenBase(chain.Base{File: name}, 512); err == nil {
			t.Errorf("%s was opened: %v", name, base.Close())
		}
		if layer, err := s.OpenLayer(chain.Layer{File: name}); err == nil {
			t.Errorf("%s was opened: %v", name, layer.Close())
		}
	}
	for _, device := range []string{"/dev/null", "/dev/loop0", outside} {
		if base, err := s.OpenBase(chain.Base{Device: device}, 512); err == nil {
			t.Errorf("%s was opened: %v", device, base.Close())
		}
	}
}

func TestABaseThatAnotherProgramChangedIsNoticed(t *testing.T) {
	s, dir := openTest(t)
	file := filepath.Join(dir, "root")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	b := chain.Base{File: "root"}
	var err error
	if b.Stamp, err = s.Stamp(b); err != nil {
		t.Fatal(err)
	}
	base, err := s.OpenBase(b, 512)
	if err != nil {
		t.Fatal("unchanged:", err)
	}
	if err := base.Close(); err != nil {
		t.Fatal(err)
	}
	changed, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := changed.WriteAt([]byte{1}, 4096); err != nil {
		t.Fatal(err)
	}
	if err := changed.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = s.OpenBase(b, 512)
	wantReason(t, "changed", err, failure.ReasonReplicaRecord)
	b.Stamp = disk.Stamp{}
	if base, err = s.OpenBase(b, 512); err != nil {
		t.Fatal("without a stamp:", err)
	}
	if err := base.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAnOpenBaseIsLockedForWriting(t *testing.T) {
	s, dir := openTest(t)
	if err := s.CreateBase(chain.Base{File: "root"}, 1<<20, 512, false); err != nil {
		t.Fatal(err)
	}
	base, err := s.OpenBase(chain.Base{File: "root"}, 512)
	if err != nil {
		t.Fatal(err)
	}
	write := func() ([]byte, error) {
		return exec.Command("qemu-io", "-f", "raw", "-c", "write 0 4096", filepath.Join(dir, "root")).CombinedOutput()
	}
	if out, err := write(); err == nil || !strings.Contains(string(out), "lock") {
		t.Errorf("qemu-io wrote to a locked base: %v, %s", err, out)
	}
	if _, err := s.OpenBase(chain.Base{File: "root"}, 512); reason(err) != failure.ReasonImageInUse {
		t.Errorf("a second opening: %v", err)
	}
	if err := base.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := write(); err != nil {
		t.Errorf("after closing: %v, %s", err, out)
	}
}

func TestALayerIsAnOverlayThatIsNeverMadeTwice(t *testing.T) {
	s, dir := openTest(t)
	if err := s.CreateBase(chain.Base{File: "web/root"}, 1<<20, 512, false); err != nil {
		t.Fatal(err)
	}
	layer, err := s.CreateLayer(chain.Layer{File: "web/root.0a.qcow2"}, 1<<20, 512)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateLayer(chain.Layer{File: "web/root.0a.qcow2"}, 1<<20, 512); err == nil {
		t.Error("a layer was made over another one")
	}
	content := bytes.Repeat([]byte{0xab}, 8192)
	if _, err := layer.WriteAt(content, 64<<10); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(layer.Seal(disk.Parent{Name: "root", Format: "raw"}), layer.Close()); err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(dir, "web/root.0a.qcow2")
	for _, args := range [][]string{{"check", "-f", "qcow2", overlay}, {"convert", "-f", "qcow2", "-O", "raw", overlay, dir + "/out"}} {
		if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
			t.Fatalf("qemu-img %v: %v, %s", args, err, out)
		}
	}
	got, err := os.ReadFile(dir + "/out")
	want := make([]byte, 1<<20)
	copy(want[64<<10:], content)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("qemu-img reads something else through the layer, %v", err)
	}
	again, err := s.OpenLayer(chain.Layer{File: "web/root.0a.qcow2"})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if _, err := s.OpenLayer(chain.Layer{File: "web/root.0a.qcow2"}); reason(err) != failure.ReasonImageInUse {
		t.Errorf("a second opening: %v", err)
	}
}

func TestRemoveIsRepeatable(t *testing.T) {
	s, dir := openTest(t)
	if err := s.CreateBase(chain.Base{File: "web/root"}, 1<<20, 512, false); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Remove("web/root", "web/other", "nowhere/x"); err != nil {
			t.Fatal(err)
		}
		if err := s.RemoveDirectory("web"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "web")); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
	if err := s.CreateBase(chain.Base{File: "web/root"}, 1<<20, 512, false); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveDirectory("web"); err != nil {
		t.Errorf("a directory that is not empty: %v", err)
	}
	if err := s.Exists("web/root"); err != nil {
		t.Error(err)
	}
}

func TestABalloonHoldsSpaceAndGivesItBack(t *testing.T) {
	s, _ := openTest(t)
	b := s.Balloon("web/root.0a.balloon")
	if err := b.ShrinkTo(0); err != nil {
		t.Errorf("shrinking what is not there: %v", err)
	}
	allocated := func() int64 {
		bytes, err := s.Allocated("web/root.0a.balloon")
		if err != nil {
			t.Fatal(err)
		}
		return bytes
	}
	for _, step := range []struct {
		do   func() error
		want int64
	}{
		{func() error { return b.Grow(8 << 20) }, 8 << 20},
		{func() error { return b.Grow(4 << 20) }, 8 << 20},
		{func() error { return b.Grow(12 << 20) }, 12 << 20},
		{func() error { return b.ShrinkTo(16 << 20) }, 12 << 20},
		{func() error { return b.ShrinkTo(5 << 20) }, 5 << 20},
		{b.Remove, 0},
		{b.Remove, 0},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if got := allocated(); got != step.want {
			t.Errorf("the balloon holds %d bytes, want %d", got, step.want)
		}
	}
}

func TestAStorageDirectoryHasOneAgent(t *testing.T) {
	dir := t.TempDir()
	open := func() *Storage {
		files, err := Open(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	first, second := open(), open()
	defer second.Close()
	if err := first.Claim(); err != nil {
		t.Fatal(err)
	}
	if err := second.Claim(); err == nil || failure.Find(err).Reason != failure.ReasonStateInUse ||
		!strings.Contains(err.Error(), dir) {
		t.Errorf("a second agent: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := second.Claim(); err != nil {
		t.Errorf("after the first: %v", err)
	}
}
