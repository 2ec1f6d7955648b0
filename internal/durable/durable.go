// Package durable owns files and directories: who creates, renames, removes and syncs them, and in what order.
// No other package calls fsync, rename or unlink on anything that must survive a crash.
//
// Vocabulary. A Dir is a directory tree that cannot be left: names are relative, cleaned, and resolved without
// following links out of it. A File is positioned I/O on one open file. A write is durable once Sync of the file
// returned nil; a creation, rename or removal once Sync of its directory did.
//
// Invariants. A failed Sync is final: the file answers the same error ever after, and no caller retries it,
// because the kernel may have dropped the pages that it could not write. WriteFile replaces a file whole or not
// at all.
//
// Two implementations: the operating system's, and the recorder in durabletest, which keeps what is synced apart
// from what is not and enumerates the states that a power loss may leave.
package durable

import (
	"errors"
	"io"
	"io/fs"
	"slices"
)

// ErrNotRegular is answered for opening what is not a regular file with exactly one name: a link, a device, a
// file with a second name that somebody else may write through.
var ErrNotRegular = errors.New("not a regular file of its own")

// ErrSync is in the chain of every error of a File's Sync: what was written since the sync before it may be lost
// although it still reads as written. An error without it left nothing unknown.
var ErrSync = errors.New("what was written may be lost")

// SyncFailed puts ErrSync into err's chain and leaves its text; nil stays nil.
func SyncFailed(err error) error {
	if err == nil {
		return nil
	}
	return syncFailed{err}
}

type syncFailed struct{ error }

func (e syncFailed) Unwrap() error { return e.error }

func (e syncFailed) Is(target error) bool { return target == ErrSync }

// File is one open file. Methods may be called concurrently; offsets and lengths are bytes.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer

	// Sync makes everything written before it durable. Its first error is final: every later Sync returns it.
	Sync() error
	// Truncate sets the size; a longer file reads as zeros at its end.
	Truncate(size int64) error
	// Size is the present size.
	Size() (int64, error)
	// Allocate reserves space for [off, off+n) without changing content or size, so that later writes there
	// cannot fail for want of space. errors.ErrUnsupported where the filesystem cannot.
	Allocate(off, n int64) error
	// Punch makes [off, off+n) read as zeros and gives its space back where the filesystem can; where it cannot
	// the zeros are written. The size does not change.
	Punch(off, n int64) error
	// ZeroRange makes [off, off+n) read as zeros and keeps its space allocated where the filesystem can.
	ZeroRange(off, n int64) error
	// SeekData finds the first range at or after off that may hold data: [start, end) with start >= off.
	// io.EOF when only holes follow. A filesystem that cannot tell answers [off, size).
	SeekData(off int64) (start, end int64, err error)
	// Fd is the descriptor for locks and ioctls; false for a file that has none.
	Fd() (uintptr, bool)
}

// Mode says how an existing file is opened.
type Mode uint8

// The modes of Open.
const (
	ReadOnly Mode = iota
	ReadWrite
)

// Dir is a directory tree. Names are slash-separated and relative; one that would leave the tree is refused.
type Dir interface {
	// Open opens an existing regular file, without following a link in its last component.
	Open(name string, mode Mode) (File, error)
	// Create makes a new file, mode 0600; fs.ErrExist when the name is taken.
	Create(name string) (File, error)
	// Mkdir makes a directory and its missing parents, mode 0700; an existing one is no error. It is durable
	// when Mkdir returns.
	Mkdir(name string) error
	// Rename replaces newName; durable after Sync of both directories.
	Rename(oldName, newName string) error
	// Remove deletes a file or an empty directory; durable after Sync of its directory.
	Remove(name string) error
	// Sync makes creations, renames and removals in the directory durable.
	Sync(name string) error
	// Stat describes name; fs.ErrNotExist when there is none.
	Stat(name string) (fs.FileInfo, error)
	// List names the entries of a directory in order.
	List(name string) ([]string, error)
	// Free is the number of bytes an unprivileged user may still write.
	Free() (int64, error)
	// Path is the absolute path of name, for messages to an operator; it is never opened.
	Path(name string) string
	// Close releases the tree. Files opened from it stay open.
	Close() error
}

func sortedNames(entries []fs.DirEntry) []string {
	names := make([]string, len(entries))
	for i, entry := range entries {
		names[i] = entry.Name()
	}
	slices.Sort(names)
	return names
}
