package tracking

import (
	"vmreplica/internal/disk"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/disk/images"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// Allowed is the images and devices that the agent's start-up allows, each opened to read and locked against
// writers, or to be written by a machine.
func Allowed(places *images.Images) Images { return allowed{places} }

type allowed struct{ places *images.Images }

func (a allowed) Open(spec replication.DiskSpec) (Image, error) {
	chain, err := a.places.OpenChain(spec.Path, spec.Format, spec.Backing)
	if err != nil {
		return nil, err
	}
	return chain, nil
}

func (a allowed) OpenLive(spec replication.DiskSpec) (disk.Image, error) {
	if err := CheckAttachable(spec); err != nil {
		return nil, err
	}
	return a.places.Open(spec.Path, spec.Format, imagelock.Write)
}

// CheckAttachable refuses a disk that no machine can attach through the agent.
func CheckAttachable(spec replication.DiskSpec) error {
	if spec.Format == replication.FormatRaw {
		return nil
	}
	return failure.New(failure.Precondition, failure.ReasonUnsupported,
		"a running machine's %s image cannot be tracked: only raw files and block devices are attached through the agent",
		spec.Format).On("", spec.ID).
		Try("Convert the image (qemu-img convert -O raw) and enable it as raw, or replicate the machine while it is off.")
}

func (a allowed) Stamp(spec replication.DiskSpec) (disk.Stamp, error) {
	return a.places.Stamp(spec.Path, spec.Backing...)
}

func (a allowed) Backing(spec replication.DiskSpec) ([]string, error) {
	return a.places.Backing(spec.Path, spec.Format)
}
