// Package receive is the replica's end of a transfer: it digests what it holds, applies what the primary sends,
// proves it, and keeps the cursor from which a lost connection goes on.
//
// Vocabulary. A session is one stream of one disk; the one with the highest number is the only one that writes. The
// position of a session is digested (blocks whose digests were sent), proven (segments whose hash is the
// primary's) and durable (the saved cursor); each never passes the one before it.
//
// A session, goroutine by goroutine:
//
//	receive  the primary's messages → credit, refinements asked for, frames and proofs; never sends
//	digest   reads the view in order, within the primary's credit
//	refine   answers sub-block digests
//	apply    writes frames to the target, then compares segment hashes, in the order they came
//	save     flushes the target, then saves the cursor
//	send     answers first, then acknowledgements, then digests
//
// Invariants. The target is the receiving layer; for an initial replication it is the incomplete base. A frame
// touches only blocks whose digests were sent and whose segment is not proven. A leaf is of what the view holds
// after the write. The cursor is saved after the flush that covers it; a failed sync ends the transfer for good,
// and its record says so.
//
// On disk after a crash: the record's cursor and everything before it. What the layer holds beyond the cursor is
// either there or not, and is digested again like everything else.
package receive
