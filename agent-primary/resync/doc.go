// Package resync is the primary's end of a resync: one pass over each disk of a VM, compared with the replica,
// the differing content shipped and everything proven. It decides nothing about the relationship and keeps
// nothing: who calls it persists, retries and commits.
//
// Vocabulary. A pass goes once over one disk, from the replica's cursor to the end. An attempt is the passes of all
// disks over one connection; a lost connection ends an attempt, not the resync. A block is settled when the
// replica is known to hold it: equal by digest, or shipped. A segment is proven when the replica answered that
// what it will hold has the primary's hash.
//
// A pass, goroutine by goroutine; each arrow is a bounded channel:
//
//	receive  replica's messages → runs, refinements, mismatches, acknowledgements; never sends
//	read     runs → pieces of the image, each read once
//	compare  pieces → leaves and differing blocks, on several goroutines, in order
//	settle   owns the open segments: asks for refinements, builds frames, orders proofs
//	send     one message after another, frames compressed on the way, paced
//
// Invariants. What waits is bounded by the credits: digests by bytes of image, refinements by blocks, frames by
// plaintext. A reader never waits for its own writer. A proof is sent after the frames of its segment. Blocks that
// wait for their refinement are copies of what was read once, within the agent's Budget; when that is used up a
// block goes whole. Nothing is on the primary's disk at any time.
package resync
