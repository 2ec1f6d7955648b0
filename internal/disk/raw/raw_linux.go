package raw

import "golang.org/x/sys/unix"

// mapsHoles says whether SeekData tells holes from data here.
const mapsHoles = true

// adviseSequential doubles the kernel's read-ahead. Advice that is refused costs speed only.
func adviseSequential(fd uintptr) { _ = unix.Fadvise(int(fd), 0, 0, unix.FADV_SEQUENTIAL) }

func adviseWillNeed(fd uintptr, off, n int64) { _ = unix.Fadvise(int(fd), off, n, unix.FADV_WILLNEED) }

func allocated(fd uintptr) (int64, bool) {
	var stat unix.Stat_t
	if err := unix.Fstat(int(fd), &stat); err != nil {
		return 0, false
	}
	return stat.Blocks * 512, true
}
