// Package guest boots a small virtual machine whose disks are what a test gives it: it writes as a guest does, is
// killed, and says of a replica whether a machine can live on it.
//
// Vocabulary. A guest is QEMU with a Debian kernel and an initrd of busybox, e2fsck and sqlite3. Its mode is
// what it does: Write commits rows to a database on the first disk, each after a synced file on the second whose digest
// it holds; Check replays the journals and says what it found. A row is committed when the guest has said so.
// Lines are what an operator starts the machine with, beside what it is.
// A load is no guest but fio, through the client that a guest's disk has.
//
// Invariants. The processor is emulated (TCG), whatever the host offers: nested virtualization is not to be told by its
// device. A guest ends with its test. Nothing of it is on disk but its initrd, in a directory of the
// test.
//
// The checks of a guest do not notice every fault of tracking: a filesystem stops at the gap that a lost delta leaves and
// is whole. A test compares the newest row, and the bits, as well.
package guest
