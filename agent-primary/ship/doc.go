// Package ship sends what a running machine has written: the changes of a cycle, and those that a resync has to catch up
// with. It is one algorithm for both, and decides nothing about the relationship: who calls it persists and commits.
//
// Vocabulary. A round takes what is marked and sends it from the running disks, freezing nothing; what is written
// meanwhile is marked anew. A cut is an instant of all disks: its content is frozen until it is sent. A shipment is what
// one disk has of a round or a cut, sent over one stream, with a root over its frames. Dirty is what is marked and was not
// sent.
//
// The algorithm. While more is dirty than copy-before-write can keep, rounds are sent; once it fits, the cut. After three
// rounds that did not shrink what is dirty the cut is tried anyway. A cut that breaks turns into a round: its shipments end
// early, what was sent of them stays, the rest is marked, and a round follows.
//
// A shipment, goroutine by goroutine; each arrow is a bounded channel:
//
//	read     the epoch → frames; what copy-before-write keeps goes first when that is much
//	encode   frames → compressed and hashed, on several goroutines, in order
//	send     one frame after another as the credit allows, then the root over all of them
//	receive  acknowledgements → ranges that are sent; in the end the replica's root; never sends
//
// Invariants. A range counts as sent when the replica has acknowledged the frame that holds it, and it is proven and
// durable there with the end of its shipment. No shipment counts that did not reach its end: then everything that was
// sent since the last commit is marked again. The cut is answered for when every disk has finished a shipment of it in
// which nothing is missing. No write of the machine waits for anything here. Of a disk are held the replica's credit, one
// frame for each worker and three more, and a piece that is being read.
//
// Nothing is on disk. After a kill the logs have every mark that the replica may not have committed.
package ship
