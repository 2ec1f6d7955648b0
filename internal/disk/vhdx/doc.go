// Package vhdx is Hyper-V's disk format: fixed, dynamic and differencing VHDX files, as [MS-VHDX] has it.
//
// Vocabulary, as in the specification. A payload block holds a part of the disk, 1 to 256 MiB. The BAT has an entry
// of 8 bytes for each: its state and its place in the file. A chunk is the payload blocks that one sector bitmap block
// describes, 2^23 sectors; of a differencing file it says which sectors are the file's own and which the parent's.
// The log makes changes of the BAT, of bitmaps and of metadata atomic: pages of 4 KiB, with the places they go to. The
// header names the log when there is something to replay. An Image is a base, a Layer a differencing file.
//
// Invariants. Nothing in a file is believed before it is checked. Pages of the BAT and of bitmaps are cached within
// a bound, 16 MiB, and as much again at most while a Flush has them; no table is read whole. A page changes in memory
// alone until Flush:
//
//	Flush:   note the dirty pages
//	         sync: data, and the size of the file, are durable
//	         write an entry of the log; sync: its changes are durable; write its pages to their places
//	         ... until all dirty pages are written
//	         punch the blocks that the changes freed; only now they may be used again
//	Close:   Flush; sync; take the log's name out of both headers
//
// The first entry of a log is empty and durable before the header names it. Entries are parts of a Flush, in an order
// in which each leaves a whole file. A place that a block gets reads as zeros by then, so a BAT entry may become
// durable before its data; the bits of a bitmap are set only after theirs was written.
//
// After a crash at any moment the file opens, after a replay, and holds everything flushed. What was not flushed may
// be there or not. Space at the end of the file may belong to nothing. A flushed range that is written again is
// written in place: after a crash it holds, sector by sector, the old bytes or the new. A file whose creation was
// interrupted lacks its identifier and is refused.
//
// Identity is the DataWriteGuid. It changes with a session's first change of the disk, and only then: Seal leaves it.
//
// [MS-VHDX]: https://learn.microsoft.com/openspecs/windows_protocols/ms-vhdx
package vhdx
