package chain

// MergeRoom is the most, in bytes, that a base can grow by when a layer is merged into it: what the layer holds, and no
// more than the base lacks of a disk of size bytes. layer and base are what the two have allocated.
func MergeRoom(size, layer, base int64) int64 { return min(layer, max(size-base, 0)) }
