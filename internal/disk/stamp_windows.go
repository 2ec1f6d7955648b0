package disk

import (
	"fmt"

	"golang.org/x/sys/windows"
)

// StampOf describes the open file behind the handle. Windows tells no change time here: ChangedNanoseconds is 0.
func StampOf(fd uintptr) (Stamp, error) {
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(windows.Handle(fd), &info); err != nil {
		return Stamp{}, fmt.Errorf("describe an open image: %w", err)
	}
	return Stamp{
		Device:              uint64(info.VolumeSerialNumber),
		Inode:               uint64(info.FileIndexHigh)<<32 | uint64(info.FileIndexLow),
		SizeBytes:           int64(info.FileSizeHigh)<<32 | int64(info.FileSizeLow),
		ModifiedNanoseconds: info.LastWriteTime.Nanoseconds(),
	}, nil
}
