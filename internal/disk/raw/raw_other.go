//go:build !linux

package raw

// mapsHoles is false: this platform has no SEEK_DATA, every range counts as data.
const mapsHoles = false

func allocated(uintptr) (int64, bool) { return 0, false }
