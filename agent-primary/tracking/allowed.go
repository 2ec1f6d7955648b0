package tracking

import (
	"vmreplica/internal/disk"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/disk/images"
	"vmreplica/internal/replication"
)

// Allowed is the images and devices that the agent's start-up allows, each opened to read and locked against
// writers.
func Allowed(places *images.Images) Images { return allowed{places} }

type allowed struct{ places *images.Images }

func (a allowed) Open(path string, format replication.Format) (Image, error) {
	return a.places.Open(path, format, imagelock.Read)
}

func (a allowed) Stamp(path string) (disk.Stamp, error) { return a.places.Stamp(path) }
