// Package imagelock keeps two programs from using one image at once. It takes the byte-range locks that QEMU
// takes, so that a virtual machine, qemu-img, libvirt and the agents refuse each other.
//
// Vocabulary. A program locks one byte for each right it uses (100 read consistently, 101 write, 102 write what
// is there already, 103 resize) and one, a hundred higher, for each right it denies to others. All locks are
// shared, so that they never wait; the conflict is found by asking, after taking one's own, who holds the
// opposite bytes: a right of mine denied by another, or a right of another's denied by me. Two that come at the
// same instant may both be refused; never are both let in.
//
// Invariants. The locks belong to the open file description: closing it gives them up, and nothing else of the
// same process does. An image has one open description, so that no lock is lost or met by ourselves.
//
// What a raw image's reader sees of it beside a writer is the reader's choice: programs that read a raw image
// and do not deny writing (qemu-img compare) are let in beside an agent that writes, as beside a running machine.
package imagelock

// Access is what the image is opened for.
type Access uint8

// Read denies others to write or resize. Write also writes and resizes: one writer, and no reader that denies it.
const (
	Read Access = iota
	Write
)

// Lock takes the locks for access on the open file or device behind fd; path is for messages. When another
// program's locks forbid it, the failure has reason IMAGE_IN_USE, names the program where it can be seen, and
// says what to do; nothing stays locked. The locks last until the open file is closed.
func Lock(fd uintptr, path string, access Access) error { return lock(fd, path, access) }
