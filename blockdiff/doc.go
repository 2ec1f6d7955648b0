// Package blockdiff is the arithmetic of a resynchronization: how a disk is cut into pieces, how two copies are
// compared, how their equality is proven, and how differing content is packed for the wire. It is pure: bytes and
// values in, values out. It opens no file, starts no goroutine and knows no network.
//
// Vocabulary. A block is 64 KiB, a sub-block 4 KiB, a segment 16 MiB; Geometry counts them on a disk of a given
// size. A Run is consecutive blocks as one side describes them: by digest, as zeros, or as a hole. An Extent is a
// byte range with content, zeros, or no space at all; a Frame is a list of extents with the plaintext of the
// data extents, coded and perhaps compressed. The chain value of a disk begins with its Geometry and is extended
// by one segment hash after another; its last value is the disk's root.
//
// Two questions, two functions. Digest and SubDigests are xxh64, a filter: equal digests mean "probably equal",
// and whoever writes the content can make that wrong at will. Prover is the proof: equal roots mean equal disks.
// Nothing may be called equal on a digest alone; a pass compares digests to decide what to send, and segment
// hashes to decide whether what was sent is enough.
//
// Invariants. The last block and sub-block of a disk are hashed padded with zeros and shipped at their true
// length. A block of zeros, allocated or not, has the same digest and the same leaf, so the proof is about
// content and not about allocation. Lists from another host are checked whole, against the disk and against
// fixed limits, before anything is done with them: CheckRun, UnpackDigests and Decoder.Decode answer an error
// that wraps ErrRun or ErrFrame. Values on the wire are described byte by byte in docs/wire.md and pinned by the
// tests.
//
// A block's way through a pass, on the side that sends:
//
//	read the block once
//	leaf := ZeroLeaf or Leaf(block)                 kept for Segment
//	if IsZero(block) != the run's kind, or Digest(block) != the run's digest:
//	    ask for the other side's SubDigests
//	    for each Span of Differing(block, theirs): Builder.AddData
//	Builder full: Encoder.Encode(Builder.Take()), send
//	segment complete: chain = Extend(chain, Segment(leaves)), send the segment hash
//
// and on the side that receives: Decoder.Decode each frame, apply its extents in order, recompute the leaves of
// what they touched, compare the segment hash.
package blockdiff
