package tracking

import (
	"vmreplica/internal/disk"
	"vmreplica/internal/disk/images"
	"vmreplica/internal/replication"
)

// Allowed is the images and devices that the agent's start-up allows, each opened to read and locked against
// writers.
func Allowed(places *images.Images) Images { return allowed{places} }

type allowed struct{ places *images.Images }

func (a allowed) Open(spec replication.DiskSpec) (Image, error) {
	chain, err := a.places.OpenChain(spec.Path, spec.Format, spec.Backing)
	if err != nil {
		return nil, err
	}
	return chain, nil
}

func (a allowed) Stamp(spec replication.DiskSpec) (disk.Stamp, error) {
	return a.places.Stamp(spec.Path, spec.Backing...)
}

func (a allowed) Backing(spec replication.DiskSpec) ([]string, error) {
	return a.places.Backing(spec.Path, spec.Format)
}
