// Package qcow2 is the format twice: Overlay, the differencing disk that is made here, and Image, a base that anybody
// made.
//
// An Overlay is of version 3 with extended L2 entries and 128 KiB clusters, so that a subcluster is exactly the 4 KiB
// sub-block and has an allocation bit and a zero bit of its own. A write never reads what is below it: there is no
// copy-on-write.
//
// Vocabulary, as in the format's specification. A cluster is the unit of allocation in the file; a subcluster a
// 32nd of it. An L2 entry maps one cluster of the disk: the cluster of the file that holds it, and the two bits of
// each subcluster. An L2 table is one cluster, 8192 entries, 1 GiB of the disk; the L1 table points to L2 tables. A
// slice is 4 KiB of an L2 table, 32 MiB of the disk: the unit that is cached, marked dirty and written. A refcount
// block counts the references of 65536 clusters of the file; the refcount table points to refcount blocks.
//
// Invariants of an Overlay. Clusters are only ever appended: a cluster of the disk keeps its cluster of the file for good, every
// allocated cluster has the refcount 1, and a new one lies beyond the end of the file and so reads as zeros. The
// file grows before a cluster is handed out, never shrinks, and a write never leaves what it has grown to. Metadata
// stays in memory until Flush, within a bound: when too much of it is dirty, a write flushes first.
//
//	WriteAt: reserve clusters in the tables; write the data; then set the allocation bits
//	Flush:   note the dirty slices and the end of allocation
//	         write refcounts; sync: data, refcounts and the size of the file are durable
//	         write the refcount table where it gained a block; sync
//	         write the noted slices and the L1 table; sync
//
// The lock over the metadata is not held for any of this I/O. A slice that changes while a Flush holds it is copied
// first, so that only bits whose data is synced reach the file.
//
// After a crash at any moment the file holds every flushed extent, `qemu-img check` finds leaked clusters at worst,
// and what was not flushed may be there or not. A flushed subcluster that is written again is written in place:
// after a crash it holds, sector by sector, the old bytes or the new. Whoever resumes must therefore write it
// again (resynchronization is redo-only: the cursor is saved after Flush, and everything behind it is sent again).
//
// The parent is named by Seal alone. Before it the file has no backing file; Seal puts the name where nothing
// points to yet, syncs, and makes it the parent by one write of the header's first sector.
//
// An Image is of version 2 or 3 with clusters of any size, refcounts of any width, extended L2 entries or not. Read
// are compressed clusters of both kinds too, an image that is marked dirty, and one with a backing file: what it
// leaves to that is absent. Refused are encryption, data in another file, unknown incompatible features, the corrupt
// mark, and for writing the dirty mark and a backing file.
//
// Invariants of an Image. Content is written in place only into clusters whose entry says that the disk alone has them
// (COPIED), and never into a table. All other content goes to clusters with the refcount 0, which it gets first: a
// cluster that an internal snapshot shares, or a compressed one, is copied whole. A cluster that lost its last use is
// free once the Flush that made this durable ended, and no read or write of it is under way. Of the disk's size are
// in memory only the L1 table, the refcount table and the sorted places of tables, 32, 8 and 40 MiB at most; the rest
// is a cache of 16 MiB. Bitmaps do not follow writes: the first one clears their mark of consistency.
//
//	WriteAt: take clusters; write the data; then enter it into the tables, in memory
//	Flush:   write refcounts, and a refcount table that moved; sync: data and new tables too are durable
//	         enter new refcount blocks into the table, or the moved table into the header; sync
//	         write L2 and L1 tables; sync
//	         lower the refcounts of what lost its use, give its space back, write them; no sync
//
// A new L2 table is written whole when it is made, before anything names it. After a crash at any moment the file holds
// everything flushed, Check and `qemu-img check` find leaks at worst, and each sector written since holds its old
// content or one of the new.
package qcow2
