// Package ship sends what a running machine has written: the changes of a cycle, and those that a resync has to catch up
// with. It is one algorithm for both, and decides nothing about the relationship: who calls it persists and commits.
//
// Vocabulary. A round takes what is marked and sends it from the running disks, freezing nothing; what is written
// meanwhile is marked anew. A cut is an instant of all disks: its content is frozen until it is sent. A shipment is what
// one disk has of a round or a cut, sent over one stream, with a root over its frames. Dirty is what is marked and was not
// sent.
//
// The algorithm. While more is dirty than copy-before-write can keep, rounds are sent; once it fits, the cut. After three
// rounds that did not shrink what is dirty the cut is tried anyway. A cut that breaks turns into a round: what was
// received of it stays, and the rest is marked.
//
// Invariants. A range counts as sent when the replica has acknowledged the frame that holds it, and it is durable there
// with the end of its shipment. Whenever a shipment does not reach its end, everything that was sent since the last
// commit is marked again. No write of the machine waits for anything here. What is held is bounded by the replica's
// credit and a frame for each worker and disk.
//
// Nothing is on disk. After a kill the logs have every mark that the replica may not have committed.
package ship
