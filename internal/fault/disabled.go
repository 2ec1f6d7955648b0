//go:build !faults

package fault

// Enabled says whether a fault is asked for: never, in this build.
func Enabled(string) bool { return false }

// Hit is a crash point: nothing, in this build.
func Hit(string) {}
