package chain

import (
	"path"
	"slices"

	"vmreplica/internal/disk"
	"vmreplica/internal/replication"
)

func (r *Record) layerFile(d *Disk, transfer replication.ID) string {
	return path.Join(r.Directory, d.ID+"."+transfer.Short()+d.layerKind().Extension)
}

// layerDifference says how the layer at index i, whose file now has this stamp, is not as this agent left it; empty when it
// is. While a neighbour is merged the agent writes to it too, as the target or in its header: then only that is known
// which its own writes do not change.
func (d *Disk) layerDifference(i int, now disk.Stamp) string {
	known := d.Layers[i].Stamp
	switch {
	case d.Layers[i].State == Receiving || known == (disk.Stamp{}):
		return ""
	case i > 0 && d.Layers[i-1].State == Merging || i+1 < len(d.Layers) && d.Layers[i+1].State == Merging:
		return known.Difference(withoutWrites(known, now))
	default:
		return known.Difference(now)
	}
}

// settleLayer says that the stamp is the file's from now on.
func (d *Disk) settleLayer(file string, stamp disk.Stamp) {
	d.Layers = slices.Clone(d.Layers)
	for i := range d.Layers {
		if d.Layers[i].File == file {
			d.Layers[i].Stamp = stamp
		}
	}
}

// newLayer is the one that the transfer, which is open, fills.
func (r *Record) newLayer(d *Disk, transfer replication.ID) Layer {
	return Layer{
		File: r.layerFile(d, transfer), Format: d.layerKind().Format, State: Receiving, Transfer: transfer,
		Kind: r.Transfer.Kind,
	}
}

// parent is what lies below the layer at index i, as a header names it, with the identity that it has at this moment.
// The disk is open.
func (v *VM) parent(d *Disk, i int) disk.Parent {
	opened := v.disks[d.ID]
	if i > 0 {
		below := d.Layers[i-1]
		return disk.Parent{
			Name: path.Base(below.File), Path: v.storage.Path(below.File), Format: string(below.ImageFormat()),
			Identity: identityOf(opened.layer(below.File)),
		}
	}
	base := disk.Parent{Format: string(d.Base.ImageFormat()), Identity: identityOf(opened.base.Disk)}
	if d.Base.Device != "" {
		base.Name, base.Path = d.Base.Device, d.Base.Device
		return base
	}
	base.Name, base.Path = path.Base(d.Base.File), v.storage.Path(d.Base.File)
	return base
}

// identityOf is the identity of what has one; None otherwise.
func identityOf(image disk.Disk) disk.Identity {
	if identified, ok := image.(disk.Identified); ok {
		return identified.Identity()
	}
	return disk.None
}
