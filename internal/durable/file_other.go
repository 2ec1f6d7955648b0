//go:build !linux

package durable

import (
	"errors"
	"io/fs"
	"os"
	"runtime"

	"vmreplica/internal/failure"
)

const (
	openFlags      = 0
	directoryFlags = 0
)

func syncContent(file *os.File) error { return file.Sync() }

// syncDirectory does nothing on Windows, where a directory cannot be synced and NTFS journals its names.
func syncDirectory(file *os.File) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	return file.Sync()
}

func allocate(*os.File, int64, int64) error {
	return lacks("reserving space in a file")
}

func punch(*os.File, int64, int64) error { return lacks("giving back a file's space") }

func zeroRange(*os.File, int64, int64) error { return lacks("zeroing a range of a file") }

func notSupported(err error) bool { return errors.Is(err, errors.ErrUnsupported) }

// seekData takes the whole rest of the file for data.
func seekData(_ *os.File, off, size int64) (start, end int64, err error) { return off, size, nil }

func freeBytes(*os.File) (int64, error) { return 0, lacks("asking for a filesystem's free space") }

func linkCount(fs.FileInfo) (uint64, bool) { return 0, false }

func lacks(what string) error {
	return failure.New(failure.Unsupported, failure.ReasonUnsupported,
		"%s is not built for this platform: %w", what, errors.ErrUnsupported)
}

// mapsHoles is false: this platform has no SEEK_DATA, every range counts as data.
const mapsHoles = false

func allocated(uintptr) (int64, bool) { return 0, false }
