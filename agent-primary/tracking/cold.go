package tracking

import (
	"context"

	"vmreplica/internal/disk"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// Images opens images and devices where the agent's start-up allows it.
type Images interface {
	// Open opens and locks the image, and the recorded files that it stands on, read-only. Failures: PATH_OUTSIDE,
	// IMAGE_MISSING, IMAGE_UNREADABLE, IMAGE_IN_USE with the process named, IMAGE_CHANGED when it stands on others.
	Open(spec replication.DiskSpec) (Image, error)
	// Stamp looks at the image and the recorded files that it stands on, without reading or locking them.
	Stamp(spec replication.DiskSpec) (disk.Stamp, error)
	// OpenLive opens and locks the image to be written by a machine through the agent. Failures as Open's, and UNSUPPORTED
	// with the remedy for a format whose writer has not been proven against crashes.
	OpenLive(spec replication.DiskSpec) (disk.Image, error)
	// Backing are the files that the image stands on at present, the nearest first: what is recorded.
	Backing(spec replication.DiskSpec) ([]string, error)
}

// Image is one opened image.
type Image interface {
	disk.Reader
	// Stamp is the open image's present stamp.
	Stamp() (disk.Stamp, error)
	Close() error
}

// cold is a Source without a writer.
type cold struct {
	Image
	images Images
	spec   replication.DiskSpec
}

// OpenCold opens the image that spec names, as a Source that nothing writes to while it is open.
func OpenCold(images Images, spec replication.DiskSpec) (Source, error) {
	image, err := images.Open(spec)
	if err != nil {
		return nil, failure.Locate(err, "", spec.ID)
	}
	return &cold{Image: image, images: images, spec: spec}, nil
}

// Cut is the stamp of now under a new name.
func (c *cold) Cut(ctx context.Context) (Cut, error) {
	if err := ctx.Err(); err != nil {
		return Cut{}, err
	}
	stamp, err := c.Stamp()
	if err != nil {
		return Cut{}, err
	}
	return Cut{ID: replication.NewID(), Stamp: stamp}, nil
}

// Continuous compares stamps, of the open file and of what lies at the path now: an image that was replaced
// under the reader is as changed as one that was written to.
func (c *cold) Continuous(since Cut) error {
	opened, err := c.Stamp()
	if err != nil {
		return err
	}
	if err := Unchanged(c.spec.Path, since.Stamp, opened); err != nil {
		return err
	}
	atPath, err := c.images.Stamp(c.spec)
	if err != nil {
		return err
	}
	return Unchanged(c.spec.Path, since.Stamp, atPath)
}

// Unchanged is nil when now is the stamp before, else a failure with reason IMAGE_CHANGED that says how it
// differs.
func Unchanged(path string, before, now disk.Stamp) error {
	difference := before.Difference(now)
	if difference == "" {
		return nil
	}
	return failure.New(failure.Precondition, failure.ReasonImageChanged, "the image %s changed: %s", path, difference).
		Try("Shut the virtual machine down, or keep other programs from writing to the image, while it is compared.")
}
