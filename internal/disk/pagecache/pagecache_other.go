//go:build !linux

package pagecache

// hostCache says that everything is cached: this platform is not asked.
type hostCache struct{ fd uintptr }

func (hostCache) cold(int64, int64) bool { return false }

func (hostCache) drop(int64, int64) {}

func adviseSequential(uintptr) {}
