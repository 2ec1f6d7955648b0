//go:build !linux

package imagelock

// lock does nothing: this platform has no locks that virtual machines honour.
func lock(uintptr, string, Access) error { return nil }
