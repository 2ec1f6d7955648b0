// Package relationship owns the replication of each virtual machine on its primary: one goroutine per VM, and a
// record that it persists before it acts on it.
//
// Vocabulary. A Record is everything that survives a restart. A transition is a pure function from a record to the
// next one and to what happened. A task is the work that a record asks for (next says which): to transfer, to
// follow a merge, to give up a transfer on the replica, to check. The owner is the goroutine of one VM; a worker
// does one task for it. Acked is the lineage and cut that the replica last confirmed; outstanding what a commit
// under way would establish. A machine is the VM's disks as they are tracked, open while it has a connection to one of
// them or a worker uses them. A cycle sends what has changed since the acked cut; its delta is outstanding until the
// replica's record tells what became of it.
//
// Invariants.
//   - Only the owner changes its record, in one transaction with the events that tell of it, and nothing is done
//     that the record does not say.
//   - The state is not stored beside the facts but follows from them (Record.State): Replicating is a record with
//     a proven lineage, no cause and no resync that has voided it.
//   - A resync that has begun voids the baseline: each of its ends but the commit leaves a cause.
//   - Committing is durable before the commit is sent. From there only Reconcile tells what became of it.
//   - A refusal on a stream sets no cause; what Reconcile answers may.
//   - A tracked disk is served only when the record has its log's open counter; what its log has lost is a cause. While
//     it is attached its writes are marked, in every state.
//   - The acked cut is durable before the log forgets what it held. A commit without an answer leaves the marks.
//   - A worker that was told to stop changes nothing any more, however late it answers.
//
// After a crash. next of the saved record is what goes on: a resync that was Comparing compares from the replica's
// cursor, one that was Committing asks the replica first, a merge is followed to its end, an outstanding delta is adopted
// or sent anew. Images are opened and stamped anew; logs that were open are judged when they are opened again.
package relationship
