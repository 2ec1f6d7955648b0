package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vmreplica/internal/failure"
)

// tick bounds the granularity of a local filesystem's times, which follow the kernel's timer: at least 100 Hz.
const tick = 10 * time.Millisecond

// StampOf describes the open file or block device behind fd. Its owner syncs it first: what is still in memory
// is not counted as written to a device. A file changed within the last few milliseconds is waited for, at most
// 20 ms, so that a later change cannot bear the same times. A device whose counters the host does not keep is
// refused: nothing would be noticed.
func StampOf(fd uintptr) (Stamp, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(int(fd), &stat); err != nil {
		return Stamp{}, fmt.Errorf("describe an open image: %w", err)
	}
	if stat.Mode&unix.S_IFMT == unix.S_IFBLK {
		return deviceStamp(fd, uint64(stat.Rdev))
	}
	if wait := 2*tick - time.Since(time.Unix(stat.Ctim.Unix())); wait > 0 && wait <= 2*tick {
		time.Sleep(wait)
		if err := unix.Fstat(int(fd), &stat); err != nil {
			return Stamp{}, fmt.Errorf("describe an open image: %w", err)
		}
	}
	return Stamp{
		Device: uint64(stat.Dev), Inode: stat.Ino, SizeBytes: stat.Size,
		ModifiedNanoseconds: stat.Mtim.Nano(), ChangedNanoseconds: stat.Ctim.Nano(),
	}, nil
}

// deviceStamp describes a block device. A partition has no sequence number of its own and takes its disk's; its
// counter is its own, so that what its neighbours write does not count. Writes that reach the same medium by
// another device, the whole disk's or one below, are not seen.
func deviceStamp(fd uintptr, device uint64) (Stamp, error) {
	size, err := unix.Seek(int(fd), 0, unix.SEEK_END)
	if err != nil {
		return Stamp{}, fmt.Errorf("measure an open device: %w", err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Stamp{}, fmt.Errorf("read the boot id: %w", err)
	}
	directory := SysfsDirectory(device)
	whole := directory
	if _, err := os.Stat(filepath.Join(directory, "partition")); err == nil {
		whole = filepath.Dir(directory)
	}
	if err := checkCounters(whole); err != nil {
		return Stamp{}, err
	}
	written, err := sectorsWritten(filepath.Join(directory, "stat"))
	if err != nil {
		return Stamp{}, err
	}
	sequence, err := diskSequence(whole)
	if err != nil {
		return Stamp{}, err
	}
	return Stamp{
		Device: device, SizeBytes: size, BootID: strings.TrimSpace(string(boot)),
		DiskSequence: sequence, SectorsWritten: written, Serial: serial(whole),
	}, nil
}

// SysfsDirectory is where the kernel describes the block device with this number, links resolved; the directory
// above a partition's is its disk's.
func SysfsDirectory(device uint64) string {
	link := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(device), unix.Minor(device))
	resolved, err := filepath.EvalSymlinks(link)
	if err != nil {
		return link
	}
	return resolved
}

// checkCounters refuses a device for which the kernel was told not to count.
func checkCounters(directory string) error {
	setting, err := os.ReadFile(filepath.Join(directory, "queue", "iostats"))
	if err != nil || strings.TrimSpace(string(setting)) != "0" {
		return nil
	}
	return failure.New(failure.Precondition, failure.ReasonImageUnreadable,
		"the host does not count what is written to %s, so that a change would not be noticed", filepath.Base(directory)).
		Try("Turn the counters on: echo 1 > %s/queue/iostats", directory)
}

// Fields of a block device's stat file, counted from 0.
const (
	statSectorsWritten   = 6
	statSectorsDiscarded = 13
)

// sectorsWritten adds what was written and, where the kernel tells, what was discarded.
func sectorsWritten(path string) (uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read a device's counters: %w", err)
	}
	fields := strings.Fields(string(text))
	var total uint64
	for _, field := range []int{statSectorsWritten, statSectorsDiscarded} {
		if field >= len(fields) {
			break
		}
		count, err := strconv.ParseUint(fields[field], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read a device's counters in %s: %w", path, err)
		}
		total += count
	}
	if len(fields) <= statSectorsWritten {
		return 0, fmt.Errorf("read a device's counters in %s: %d fields", path, len(fields))
	}
	return total, nil
}

// diskSequence is the number of the device's present life; 0 where the kernel, before 5.15, gives none.
func diskSequence(directory string) (uint64, error) {
	text, err := os.ReadFile(filepath.Join(directory, "diskseq"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read a device's sequence number: %w", err)
	}
	return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
}

// serial is what the device calls itself, from the first of the places where the kernel may keep it.
func serial(directory string) string {
	for _, name := range []string{"serial", "wwid", "device/serial", "device/wwid", "dm/uuid", "md/uuid"} {
		text, err := os.ReadFile(filepath.Join(directory, name))
		if found := strings.TrimSpace(string(text)); err == nil && found != "" {
			return found
		}
	}
	return ""
}
