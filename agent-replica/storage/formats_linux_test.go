package storage

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vmreplica/agent-replica/chain"
	"vmreplica/internal/disk"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// withContainer are the formats whose files hold more than the disk's bytes.
var withContainer = []replication.Format{"vhd", "vhdx", "qcow2"}

const formatSize = 64 << 20

func TestABaseOfEveryFormatIsMade(t *testing.T) {
	for _, f := range replication.Formats {
		t.Run(string(f), func(t *testing.T) {
			s, dir := openTest(t)
			b := chain.Base{File: "p/web01/root", Format: f}
			must(t, s.CreateBase(b, formatSize, 512, false))
			if bytes, err := s.Allocated(b.File); err != nil || bytes > 8<<20 {
				t.Errorf("without content it takes %d bytes, %v", bytes, err)
			}
			wantReason(t, "made again", s.CreateBase(b, formatSize, 512, false), failure.ReasonBaseExists)
			must(t, s.CreateBase(b, formatSize, 512, true))
			wantReason(t, "another size", s.CreateBase(b, formatSize*2, 512, true), failure.ReasonBaseExists)
			stamp, err := s.Settle(b)
			must(t, err)
			base, err := s.OpenBase(b, 512)
			must(t, err)
			if base.Size() != formatSize || base.LogicalSectorSize() != 512 {
				t.Errorf("the disk has %d bytes in sectors of %d", base.Size(), base.LogicalSectorSize())
			}
			must(t, base.Close())
			if now, err := s.Stamp(b); err != nil || now != stamp {
				t.Errorf("opening and closing changed the file: %s, %v", stamp.Difference(now), err)
			}
			writeAt(t, s, b, 1<<20)
			wantReason(t, "a base with content", s.CreateBase(b, formatSize, 512, true), failure.ReasonBaseExists)
			wantNames(t, filepath.Join(dir, "p/web01"), "root")
		})
	}
}

func writeAt(t *testing.T, s *Storage, b chain.Base, off int64) {
	t.Helper()
	base, err := s.OpenBase(b, 512)
	must(t, err)
	_, err = base.WriteAt(make([]byte, 4096), off)
	must(t, errors.Join(err, base.Flush(), base.Close()))
}

func wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if strings.Join(names, " ") != strings.Join(want, " ") {
		t.Errorf("the directory holds %v, want %v", names, want)
	}
}

// TestABegunBaseOfEveryFormatIsCompleted finds what a crash leaves: the empty name, and half a file beside it.
func TestABegunBaseOfEveryFormatIsCompleted(t *testing.T) {
	for _, f := range withContainer {
		s, dir := openTest(t)
		must(t, os.MkdirAll(filepath.Join(dir, "p/web01"), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, "p/web01/root"), nil, 0o600))
		must(t, os.WriteFile(filepath.Join(dir, "p/web01/root"+making), []byte("half a header"), 0o600))
		b := chain.Base{File: "p/web01/root", Format: f}
		must(t, s.CreateBase(b, formatSize, 512, true))
		writeAt(t, s, b, 0)
		wantNames(t, filepath.Join(dir, "p/web01"), "root")
		must(t, os.WriteFile(filepath.Join(dir, "p/web01/other"), []byte("somebody else's"), 0o600))
		b.File = "p/web01/other"
		wantReason(t, "another's file", s.CreateBase(b, formatSize, 512, true), failure.ReasonBaseExists)
	}
}

// TestAStatedFormatIsNotGuessed adopts files of each format as each other one.
func TestAStatedFormatIsNotGuessed(t *testing.T) {
	s, _ := openTest(t)
	for _, made := range replication.Formats {
		must(t, s.CreateBase(chain.Base{File: string(made), Format: made}, formatSize, 512, false))
		for _, stated := range withContainer {
			base, err := s.OpenBase(chain.Base{File: string(made), Format: stated}, 512)
			if made == stated {
				must(t, err)
				must(t, base.Close())
				continue
			}
			wantReason(t, string(made)+" as "+string(stated), err, failure.ReasonImageUnreadable)
			if remedy := failure.Find(err).Remedy; !strings.Contains(remedy, string(stated)) {
				t.Errorf("%s stated as %s: %v does not name the format", made, stated, err)
			}
		}
	}
}

// TestABaseHoldsItsWholeDisk refuses differencing disks, our own and QEMU's.
func TestABaseHoldsItsWholeDisk(t *testing.T) {
	s, dir := openTest(t)
	for _, f := range withContainer {
		layer, err := s.CreateLayer(chain.Layer{File: "layer." + string(f), Format: f}, formatSize, 512)
		must(t, err)
		parent := disk.Parent{Name: "base", Path: filepath.Join(dir, "base"), Format: string(f), Identity: disk.Identity{1}}
		must(t, errors.Join(layer.Seal(parent), layer.Close()))
		_, err = s.OpenBase(chain.Base{File: "layer." + string(f), Format: f}, 512)
		wantNotWhole(t, string(f), err)
	}
	must(t, s.CreateBase(chain.Base{File: "base"}, formatSize, 512, false))
	output, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", filepath.Join(dir, "top")).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img: %v: %s", err, output)
	}
	_, err = s.OpenBase(chain.Base{File: "top", Format: "qcow2"}, 512)
	wantNotWhole(t, "with a backing file", err)
}

func wantNotWhole(t *testing.T, what string, err error) {
	t.Helper()
	found := reason(err)
	if found != failure.ReasonImageUnreadable && found != failure.ReasonUnsupported {
		t.Fatalf("%s: %v", what, err)
	}
	if !strings.Contains(err.Error(), "differencing") && !strings.Contains(err.Error(), "backing file") {
		t.Errorf("%s: %v does not say why", what, err)
	}
}

func TestWhatABaseCannotHoldIsSaid(t *testing.T) {
	s, _ := openTest(t)
	for _, c := range []struct {
		format replication.Format
		size   int64
		sector int
		want   string
	}{
		{"vhd", 2040<<30 + 512, 512, failure.ReasonLimit},
		{"vhd", formatSize, 4096, failure.ReasonSectorMismatch},
		{"qcow2", formatSize, 4096, failure.ReasonSectorMismatch},
		{"vhdx", formatSize, 4096, ""},
		{"raw", formatSize, 4096, ""},
		{"qed", formatSize, 512, failure.ReasonUnsupported},
	} {
		b := chain.Base{File: "base", Format: c.format}
		wantReason(t, string(c.format), s.Supports(b, c.size, c.sector), c.want)
	}
	b := chain.Base{File: "large", Format: "vhdx"}
	must(t, s.CreateBase(b, formatSize, 4096, false))
	base, err := s.OpenBase(b, 4096)
	must(t, err)
	if base.LogicalSectorSize() != 4096 {
		t.Errorf("a base for sectors of 4096 bytes has sectors of %d", base.LogicalSectorSize())
	}
	must(t, base.Close())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
