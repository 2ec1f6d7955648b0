//go:build !linux

package vhdx

const mapsHoles = false

// AllocatedBytes is not known on this platform.
func (v *virtualDisk) AllocatedBytes() (int64, bool) { return 0, false }
