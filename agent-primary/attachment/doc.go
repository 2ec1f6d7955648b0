// Package attachment writes the lines with which a machine attaches its disks through the agent's NBD server: QEMU's
// arguments and the elements of libvirt's domain XML. It is pure.
//
// Vocabulary. The export of a disk is VM/DISK on the agent's NBD socket. QEMU's node name is what its block layer and
// its monitor call a disk.
//
// Invariants: what an operator pastes into a shell, or into XML, means exactly the socket, VM and disks it was made
// from, whatever characters they have; disks of one machine have different node names, the same each time.
//
// Nothing is kept, and nothing is on disk.
package attachment
