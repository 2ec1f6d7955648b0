package vhdx

import "golang.org/x/sys/unix"

// mapsHoles says whether SeekData tells holes from data here.
const mapsHoles = true

// AllocatedBytes is the space that the file takes on its filesystem; false for a file without a descriptor.
func (v *virtualDisk) AllocatedBytes() (int64, bool) {
	fd, ok := v.file.Fd()
	if !ok {
		return 0, false
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(fd), &stat); err != nil {
		return 0, false
	}
	return stat.Blocks * 512, true
}
