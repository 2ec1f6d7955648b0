// Package chain is what a replica holds of a VM: its record, the layers of its disks, and the view through them.
//
// Vocabulary. A disk is a base and the layers that stand on it, lowest first. A layer is receiving while a
// transfer fills it, committed once its content counts, merging while it is copied into the base, and gone from
// the record when that is done. The view of a disk is what a reader sees through all of its layers. A transfer
// writes either a receiving layer of its own or, while the base is incomplete, the base itself. A hold is the
// right to do one kind of work on a VM.
//
// Invariants.
//   - The record changes in one transaction each time, by one of the transitions below, and is durable before
//     anybody acts on it.
//   - A file is durable before the record refers to it; the record ceases to refer to it before it is deleted.
//     Names about to be made stand in Creating, names to be deleted in Garbage, so no crash leaves a file that
//     nobody knows. A name in Garbage is not made anew before its deletion is durable.
//   - A layer is merged only when it is the lowest, and committed layers are never changed but for the parent in
//     their header.
//   - A base carries the stamp with which this agent last settled it: prepared it, committed or merged into it, or
//     closed it. Another stamp found is a doubt: it is remembered until a transfer has proven the whole disk.
//   - A base is marked before this agent writes to it and settled after. While the agent writes it, in a first copy or
//     a merge, or after it was killed there, only what the agent's own writes cannot change is compared, and what
//     another program writes meanwhile is not seen. The cursors of an incomplete base renew its stamp, and a write long after the last, or after its
//     session was taken, is another program's; then the pass begins
//     again, and what was received stays. A merge writes again all that it covers.
//   - A file's format is stated when its disk is prepared and kept with it. Here it is a word: only Storage knows what
//     it means.
//   - A committed layer names what lies below it and, where the format has one, the identity that this has. A merge
//     gives the base the layer's identity before it writes anything else.
//   - A layer or base file that is missing is a fault; it is never made again.
//   - At most MaxWaiting committed layers wait on a disk; with the receiving one its depth is at most three.
//
// After a crash at any moment the record names every file that counts. The view is the last commit's content, or
// the one before when the commit's transaction did not happen.
package chain
