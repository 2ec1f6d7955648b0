// Package e2e drives the built programs as an operator does: processes, certificates, sockets, files and signals. No
// package of the agents is used; cmp and qemu-img judge whether a replica holds what it must.
//
// A pair is two agents with directories of their own. A machine is a VM that runs on one: a guest of test/guest, or a load
// through a client that a guest's disk has. Its agents are built for faults, and the primary says what every cut holds.
// The tests that need loop devices or mounts need root.
// VMREPLICA_E2E_KILLS sets how often each kind of kill is tried (default 6), VMREPLICA_E2E_SEED what is drawn.
package e2e
