package imagelock

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxNamed bounds how many programs a message names.
const maxNamed = 3

// unseen stands for whoever does not show in /proc.
const unseen = "a program that this agent cannot see"

// holders names the programs that hold the byte b of the image behind fd, in words. The kernel does not say who
// holds a lock of this kind; what every process has open does. Where no lock can be seen, everybody else who has
// the image open is named.
func holders(fd uintptr, b int64) string {
	others := openElsewhere(fd)
	locking := slices.DeleteFunc(slices.Clone(others), func(o openDescriptor) bool { return !o.locks(b) })
	if len(locking) > 0 {
		return names(locking)
	}
	return names(others)
}

// Users names, in words, the programs other than the holder of fd that have its file or device open; empty when
// none can be seen. fd may be open with O_PATH.
func Users(fd uintptr) string {
	others := openElsewhere(fd)
	if len(others) == 0 {
		return ""
	}
	return names(others)
}

// openDescriptor is one descriptor of a process.
type openDescriptor struct{ process, descriptor int }

// openElsewhere finds the descriptors, in all processes that can be seen, that are open on what fd is open on.
func openElsewhere(fd uintptr) []openDescriptor {
	var image unix.Stat_t
	entries, err := os.ReadDir("/proc")
	if err != nil || unix.Fstat(int(fd), &image) != nil {
		return nil
	}
	own := openDescriptor{os.Getpid(), int(fd)}
	var found []openDescriptor
	for _, entry := range entries {
		process, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		descriptors, err := os.ReadDir(filepath.Join("/proc", entry.Name(), "fd"))
		if err != nil {
			continue // ended, or another user's
		}
		for _, d := range descriptors {
			descriptor, err := strconv.Atoi(d.Name())
			other := openDescriptor{process, descriptor}
			if err == nil && other != own && other.isOpenOn(&image) {
				found = append(found, other)
			}
		}
	}
	return found
}

func (o openDescriptor) isOpenOn(image *unix.Stat_t) bool {
	var stat unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/fd/%d", o.process, o.descriptor), &stat); err != nil {
		return false
	}
	if stat.Mode&unix.S_IFMT == unix.S_IFBLK {
		return image.Mode&unix.S_IFMT == unix.S_IFBLK && stat.Rdev == image.Rdev
	}
	return stat.Dev == image.Dev && stat.Ino == image.Ino
}

// locks says whether the descriptor's own locks cover the byte b. A line of its description reads
// "lock: 1: OFDLCK ADVISORY READ -1 fe:00:1234 100 101"; the last field may be EOF.
func (o openDescriptor) locks(b int64) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", o.process, o.descriptor))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[0] != "lock:" {
			continue
		}
		first, err := strconv.ParseInt(fields[len(fields)-2], 10, 64)
		last, lastErr := strconv.ParseInt(fields[len(fields)-1], 10, 64)
		if err == nil && first <= b && (lastErr != nil || b <= last) {
			return true
		}
	}
	return false
}

// nameOf is "qemu-system-x86 (process 4711)".
func nameOf(process int) string {
	if process == os.Getpid() {
		return "this agent itself"
	}
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", process))
	if err != nil {
		return fmt.Sprintf("process %d", process)
	}
	return fmt.Sprintf("%s (process %d)", strings.TrimSpace(string(command)), process)
}

// names lists the processes of the descriptors, each once, and counts those beyond maxNamed.
func names(descriptors []openDescriptor) string {
	var found []string
	for _, o := range descriptors {
		if name := nameOf(o.process); !slices.Contains(found, name) {
			found = append(found, name)
		}
	}
	if more := len(found) - maxNamed; more > 0 {
		found = append(found[:maxNamed], fmt.Sprintf("%d more", more))
	}
	switch last := len(found) - 1; {
	case last < 0:
		return unseen
	case last == 0:
		return found[0]
	default:
		return strings.Join(found[:last], ", ") + " and " + found[last]
	}
}
