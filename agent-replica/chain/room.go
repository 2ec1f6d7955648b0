package chain

import "vmreplica/internal/disk"

// MergeRoom is the most, in bytes, that a base or a layer can grow by when a layer is merged into it: what the layer holds,
// and no more than the target lacks of a disk of size bytes. layer and target are what the two have allocated.
func MergeRoom(size, layer, target int64) int64 { return min(layer, max(size-target, 0)) }

// target is the index of what the layer at index i is merged into in the end, when those between are merged as well: the
// highest layer below it that stands on a recovery point, or -1 for the base.
func (d *Disk) target(i int) int {
	for i--; i >= 0 && d.Layers[i].Point == nil; i-- {
	}
	return i
}

// TargetFile is the file that grows by the merge of the layer at index i; empty for a device, which has all its space.
func (d *Disk) TargetFile(i int) string {
	if at := d.target(i); at >= 0 {
		return d.Layers[at].File
	}
	return d.Base.File
}

// Target is what TargetFile names, open.
func (o *Open) Target(d *Disk, i int) disk.Disk {
	if at := d.target(i); at >= 0 {
		return o.Layers()[at]
	}
	return o.base
}
