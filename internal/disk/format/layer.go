package format

import (
	"errors"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/disk/vhd"
	"vmreplica/internal/disk/vhdx"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// New says what is made.
type New struct {
	// Path is for messages.
	Path string
	// SizeBytes and SectorSize are the disk's; a sector of 0 stands for 512.
	SizeBytes  int64
	SectorSize int
}

func (n New) options() Options {
	return Options{Path: n.Path, SectorSize: n.SectorSize, Access: imagelock.Write}
}

// sector is the logical sector in bytes.
func (n New) sector() int {
	if n.SectorSize == 0 {
		return 512
	}
	return n.SectorSize
}

// Create takes over file, which must be empty, locks it and makes it a base that reads as zeros: raw is sparse, VHD and
// VHDX are dynamic. It is durable when Create returns and the caller has synced the directory; a crash before that
// leaves a file that Open refuses, or the whole base; of a raw one, a file of another size. An error closes the file.
// Failures: CheckSupport's, IMAGE_IN_USE, ALREADY_EXISTS for a file that is not empty.
func Create(file durable.File, f replication.Format, n New) (disk.Image, error) {
	if err := n.admit(file, f); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	o := n.options()
	switch f {
	case replication.FormatVHD:
		image, err := vhd.Create(file, vhd.Options{SizeBytes: n.SizeBytes})
		return imageOf(image, o.located(err))
	case replication.FormatVHDX:
		image, err := vhdx.Create(file, vhdx.Options{SizeBytes: n.SizeBytes, LogicalSectorSize: n.SectorSize})
		return imageOf(image, o.closing(file, err))
	case replication.FormatQCOW2:
		image, err := qcow2.CreateImage(file, qcow2.ImageOptions{SizeBytes: n.SizeBytes})
		return stamped(image, file, o.closing(file, err))
	}
	err := file.Truncate(n.SizeBytes)
	if err == nil {
		err = file.Sync()
	}
	if err != nil {
		return nil, o.closing(file, err)
	}
	return openRaw(file, o)
}

// CreateLayer takes over file, which must be empty, locks it and makes it a differencing disk of that format in which
// everything is absent; Seal names its parent. Durability and failures are Create's.
func CreateLayer(file durable.File, f replication.Format, n New) (disk.Layer, error) {
	if err := n.admit(file, f); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	o := n.options()
	switch f {
	case replication.FormatVHD:
		layer, err := vhd.CreateDifferencing(file, vhd.Options{SizeBytes: n.SizeBytes})
		return layerOf(layer, o.located(err))
	case replication.FormatVHDX:
		layer, err := vhdx.CreateDifferencing(file, vhdx.Options{SizeBytes: n.SizeBytes, LogicalSectorSize: n.SectorSize})
		return layerOf(layer, o.closing(file, err))
	case replication.FormatQCOW2:
		layer, err := qcow2.Create(file, n.SizeBytes)
		return layerOf(layer, o.closing(file, err))
	default:
		return nil, errors.Join(noLayers(f, o), file.Close())
	}
}

// admit refuses what the format cannot hold, locks the file and makes sure that it is empty. An overlay does not record
// its disk's sectors, so it stands over a base of any.
func (n New) admit(file durable.File, f replication.Format) error {
	sector := n.sector()
	if f == replication.FormatQCOW2 {
		sector = 512
	}
	o := n.options()
	if err := CheckSupport(f, n.SizeBytes, sector); err != nil {
		return o.located(err)
	}
	if err := lock(file, o); err != nil {
		return err
	}
	present, err := file.Size()
	if err == nil && present != 0 {
		err = failure.New(failure.Exists, failure.ReasonAlreadyExists, "it holds %d bytes already", present)
	}
	return o.located(err)
}

// OpenLayer takes over file, locks it and makes it a layer that this product made. An error closes the file. Failures
// as Open's; a base is refused.
func OpenLayer(file durable.File, f replication.Format, o Options) (disk.Layer, error) {
	if err := admit(file, f, o); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	switch f {
	case replication.FormatVHD:
		layer, err := vhd.OpenDifferencing(file, o.mode())
		return layerOf(layer, o.located(err))
	case replication.FormatVHDX:
		layer, err := vhdx.OpenDifferencing(file, o.mode())
		return layerOf(layer, o.closing(file, err))
	case replication.FormatQCOW2:
		layer, err := qcow2.Open(file, o.mode())
		return layerOf(layer, o.closing(file, err))
	default:
		return nil, errors.Join(noLayers(f, o), file.Close())
	}
}

// layerOf keeps a nil layer from becoming one that is not nil.
func layerOf[L disk.Layer](layer L, err error) (disk.Layer, error) {
	if err != nil {
		return nil, err
	}
	return layer, nil
}

func noLayers(f replication.Format, o Options) error {
	return o.located(failure.New(failure.Invalid, failure.ReasonUnsupported, "the format %s has no differencing disks", f))
}
