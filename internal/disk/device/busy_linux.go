package device

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/failure"
)

// busy says who has claimed a device: a filesystem mounted from it, a device built on it, or a program.
func busy(found uintptr, path string, device uint64) error {
	number := fmt.Sprintf("%d:%d", unix.Major(device), unix.Minor(device))
	if point := mountPoint(number); point != "" {
		return inUse("%s is mounted at %s", path, point).Try("Unmount it, then try again.")
	}
	if above := builtOn(device); above != "" {
		return inUse("%s is a part of %s", path, above).
			Try("Name that device instead, or deactivate what is built on this one.")
	}
	if users := imagelock.Users(found); users != "" {
		return inUse("%s is open in %s", path, users).
			Try("Shut the virtual machine down, or end the program that has the device open, then try again.")
	}
	return inUse("%s is claimed by this host", path).
		Try("See whether a part of it is mounted or it is used for swap, RAID or a volume group.")
}

func inUse(format string, args ...any) *failure.Error {
	return failure.New(failure.Precondition, failure.ReasonImageInUse, format, args...)
}

// mountPoint is where the device is mounted; the third field of a line is its number, the fifth the place.
func mountPoint(number string) string {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[2] == number {
			return fields[4]
		}
	}
	return ""
}

// builtOn names the devices that the kernel has built on this one.
func builtOn(device uint64) string {
	entries, err := os.ReadDir(filepath.Join(disk.SysfsDirectory(device), "holders"))
	if err != nil {
		return ""
	}
	var above []string
	for _, entry := range entries {
		above = append(above, "/dev/"+entry.Name())
	}
	return strings.Join(above, ", ")
}
