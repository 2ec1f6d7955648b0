package raw

import "golang.org/x/sys/unix"

// mapsHoles says whether SeekData tells holes from data here.
const mapsHoles = true

// adviseWillNeed costs speed only when it is refused.
func adviseWillNeed(fd uintptr, off, n int64) { _ = unix.Fadvise(int(fd), off, n, unix.FADV_WILLNEED) }

func allocated(fd uintptr) (int64, bool) {
	var stat unix.Stat_t
	if err := unix.Fstat(int(fd), &stat); err != nil {
		return 0, false
	}
	return stat.Blocks * 512, true
}
