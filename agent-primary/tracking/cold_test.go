package tracking_test

import (
	"context"
	"strings"
	"testing"

	"vmreplica/agent-primary/tracking"
	"vmreplica/internal/disk"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// images is one image whose stamps the test sets: of the opened file and of what lies at its path.
type images struct {
	opened, atPath disk.Stamp
	openErr        error
}

func (i *images) Open(replication.DiskSpec) (tracking.Image, error) {
	if i.openErr != nil {
		return nil, i.openErr
	}
	return &image{images: i}, nil
}

func (i *images) Stamp(replication.DiskSpec) (disk.Stamp, error) { return i.atPath, nil }

func (i *images) OpenLive(replication.DiskSpec) (disk.Image, error) { return nil, i.openErr }

func (i *images) Backing(replication.DiskSpec) ([]string, error) { return nil, nil }

type image struct {
	disk.Reader
	images *images
}

func (i *image) Stamp() (disk.Stamp, error) { return i.images.opened, nil }
func (i *image) Close() error               { return nil }

var root = replication.DiskSpec{ID: "root", Path: "/images/root.raw", Format: replication.FormatRaw}

func TestContinuousUntilAStampMoves(t *testing.T) {
	before := disk.Stamp{Device: 1, Inode: 7, SizeBytes: 4096, ModifiedNanoseconds: 10, ChangedNanoseconds: 10}
	written, replaced := before, before
	written.ModifiedNanoseconds = 11
	replaced.Inode = 8
	cases := map[string]struct {
		opened, atPath disk.Stamp
		want           string
	}{
		"nothing moved":              {before, before, ""},
		"the image was written to":   {written, written, "it was written to"},
		"another file took its path": {before, replaced, "another file"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			images := &images{opened: before, atPath: before}
			source, err := tracking.OpenCold(images, root)
			if err != nil {
				t.Fatal(err)
			}
			cut, err := source.Cut(context.Background())
			if err != nil || !cut.ID.Valid() || cut.Stamp != before {
				t.Fatalf("cut %+v, %v", cut, err)
			}
			images.opened, images.atPath = test.opened, test.atPath
			err = source.Continuous(cut)
			if test.want == "" {
				if err != nil {
					t.Fatalf("an unchanged image is said to have changed: %v", err)
				}
				return
			}
			found := failure.Find(err)
			if found.Reason != failure.ReasonImageChanged || !strings.Contains(found.Message, test.want) ||
				!strings.Contains(found.Message, root.Path) || found.Remedy == "" {
				t.Fatalf("got %v, want %q with the path and a remedy", err, test.want)
			}
		})
	}
}

func TestOpenColdNamesTheDisk(t *testing.T) {
	inUse := failure.New(failure.Precondition, failure.ReasonImageInUse, "qemu-system-x86 (pid 4711) has it open")
	_, err := tracking.OpenCold(&images{openErr: inUse}, root)
	found := failure.Find(err)
	if found.Disk != "root" || found.Reason != failure.ReasonImageInUse {
		t.Fatalf("got %v", err)
	}
}
