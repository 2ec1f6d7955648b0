// Package receive is the replica's end of a transfer: it digests what it holds, applies what the primary sends,
// proves it, and keeps the cursor from which a lost connection goes on.
//
// Vocabulary. A session is one stream of one disk, a pass or a shipment; the one with the highest number is the only one
// that writes. A pass compares the whole disk. Its position is digested (blocks whose digests were sent), proven
// (segments whose hash is the primary's) and durable (the saved cursor); each never passes the one before it. A shipment
// is what was marked on the primary, a round's or the cut's: nothing is compared.
//
// A pass, goroutine by goroutine:
//
//	receive  the primary's messages → credit, refinements asked for, frames and proofs; never sends
//	digest   reads the view in order, within the primary's credit
//	refine   answers sub-block digests
//	apply    writes frames to the target, then compares segment hashes, in the order they came
//	save     flushes the target, then saves the cursor
//	send     answers first, then acknowledgements, then digests
//
// A shipment:
//
//	receive  the primary's messages → frames and the finish; never sends
//	apply    writes frames to the target and extends the root over them, in the order they came
//	keep     flushes the target now and then, so that the end is soon reached
//	send     the newest acknowledgement, then that everything is durable
//
// A shipment is a stream of its own: frames of what the primary has marked, written in order and proven by a root over all
// of them when it ends. It takes the disk's session, as a pass does.
//
// Invariants. The target is the receiving layer; for an initial replication it is the incomplete base. A pass's frame
// touches only blocks whose digests were sent and whose segment is not proven. A leaf is of what the view holds
// after the write. The cursor is saved after the flush that covers it, and so is a shipment's root; a failed sync ends the
// transfer for good, and its record says so. A shipment that was begun and not finished counts for nothing, and neither
// does the one before it: the transfer commits only with a later one.
//
// On disk after a crash: the record's cursor and everything before it. What the layer holds beyond the cursor is
// either there or not, and is digested again like everything else. Of a shipment all is there when the record has its
// root; else the primary ships again all that it had marked.
package receive
