// Package chain is what a replica holds of a VM: its record, the layers of its disks, and the view through them.
//
// Vocabulary. A disk is a base and the layers that stand on it, lowest first. A layer is receiving while a
// transfer fills it, committed once its content counts, merging while it is copied into what lies directly below it, the
// base or another layer, and gone from the record when that is done. The view of a disk is what a reader sees through all
// of its layers. A transfer writes either a receiving layer of its own or, while the base is incomplete, the base itself.
// A recovery point is the content of all disks at one cut; a layer stands on it when all that lies below the layer is that
// content. A point is sealed by an empty layer that stands on it, and dropped by taking that mark away. A pin is a reader
// of a point, or of what was the newest content when it began; its boundary is between what it reads and what it does not.
// A failover makes the disks the machine's, as they were at a point. A hold is the right to do one kind of work on a VM.
//
// Invariants.
//   - The record changes in one transaction each time, by one of the transitions below, and is durable before
//     anybody acts on it.
//   - A file is durable before the record refers to it; the record ceases to refer to it before it is deleted.
//     Names about to be made stand in Creating, names to be deleted in Garbage, so no crash leaves a file that
//     nobody knows. A name in Garbage is not made anew before its deletion is durable.
//   - A layer that stands on a recovery point is not merged, and nothing is merged across a pin's boundary. Of the others
//     the lowest goes first, so what commits above a point goes into the layer that stands on it, and the base below is
//     not touched. A committed layer changes only as the target of a merge, which the view does not show, and in its header.
//   - A point is on all disks or on none, in one change of the record each time. Nothing is sealed while a transfer is open.
//     A resync that found a difference drops all points in the transaction of its commit.
//   - A base carries the stamp with which this agent last settled it: prepared it, committed or merged into it, or
//     closed it. Another stamp found is a doubt: it is remembered until a transfer has proven the whole disk.
//   - A committed layer carries the stamp with which it was committed, made for a point, or last written because of a
//     neighbour's merge. Another one found is a doubt as well. While a neighbour's merge has not ended, only what the agent's
//     own writes cannot change is compared.
//   - A commit that answers a doubt drops all points: what a point reads may have been changed where the newest content
//     covers it.
//   - A base is marked before this agent writes to it and settled after. While the agent writes it, in a first copy or
//     a merge, or after it was killed there, only what the agent's own writes cannot change is compared, and what
//     another program writes meanwhile is not seen. The cursors of an incomplete base renew its stamp, and a write long after the last, or after its
//     session was taken, is another program's; then the pass begins
//     again, and what was received stays. A merge writes again all that it covers.
//   - A file's format is stated when its disk is prepared and kept with it. Here it is a word: only Storage knows what
//     it means.
//   - A committed layer names what lies below it and, where the format has one, the identity that this has. A merge
//     gives its target the layer's identity before it writes anything else.
//   - Once a failover is begun nothing is received or sealed any more, whatever term a primary has. It drops what lies
//     above its point while nobody merges, and ends when every layer is merged and no disk is open.
//   - A layer or base file that is missing is a fault; it is never made again.
//   - No transfer is begun above MaxWaiting committed layers beside those of the points that are kept, N; with the receiving
//     one and one of a dropped point no layer is added to N + 3.
//
// After a crash at any moment the record names every file that counts. The view is the last commit's content, or
// the one before when the commit's transaction did not happen. Every point that the record has reads as its cut was. Pins
// are gone with the process; layers of a point that was not sealed to its end stand in Creating.
package chain
