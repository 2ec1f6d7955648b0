//go:build !linux

package daemon

import "runtime"

// PlatformLimits is what the agents cannot do on this platform, in sentences; empty on Linux.
func PlatformLimits() []string {
	return []string{
		"On " + runtime.GOOS + " block devices cannot be replicated.",
		"On " + runtime.GOOS + " images are not locked against other programs: see that nothing else writes them.",
		"On " + runtime.GOOS + " holes of image files are not seen: they are read and compared as zeros.",
		"On " + runtime.GOOS + " the space of a merge is not reserved beforehand.",
	}
}

// forbidCoreDumps leaves the platform's own setting as it is.
func forbidCoreDumps() error { return nil }
