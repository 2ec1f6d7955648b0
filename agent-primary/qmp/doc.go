// Package qmp asks the monitor of a running QEMU whether a machine writes to the exports that its disks are attached
// through, or to an external snapshot above them. It only asks: it changes nothing in the machine.
//
// Vocabulary. The words are those of the QEMU Machine Protocol: after a greeting and the negotiation of capabilities a
// command is executed and answered with what it returns or an error; events may come at any time. A node is one layer
// of QEMU's block graph, a block backend is what a guest's device reads and writes through, and an edge leads from
// either to the node below with the permissions that it needs of it.
//
// Invariants.
//   - A socket is opened only where the agent's start-up allows it, links resolved first.
//   - What the monitor sends is bounded: in bytes for each answer, events included, and in time by the caller's context.
//   - The connection is closed before a question returns: a monitor serves one client at a time, and operators need it.
//
// Nothing is kept, and nothing is on disk.
package qmp
