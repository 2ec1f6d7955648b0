//go:build !linux

package qcow2

// AllocatedBytes is not known on this platform.
func (o *Overlay) AllocatedBytes() (int64, bool) { return 0, false }
