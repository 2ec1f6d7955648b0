// Package vhd is the VHD image of Virtual PC and Hyper-V: fixed, dynamic and differencing, as the Virtual Hard Disk
// Image Format Specification 1.0 has it and Windows writes it. All its numbers are big-endian.
//
// Vocabulary, as in the specification. The footer is the file's last sector and describes the disk; a dynamic or
// differencing file has a copy of it in its first sector. The header follows the copy and names the parent and the
// BAT, the table that says for each block of the disk in which sector of the file it begins. A block is a bitmap, a
// bit for each of its sectors, the most significant first, and its data. A locator is one way to find the parent.
//
// What is read. A fixed disk is the file without its footer. A block without a place is Unmapped in a dynamic disk
// and Absent in a differencing one; so is a sector whose bit is 0. CurrentSize is the disk's size, whoever made the
// file, as Hyper-V has it; QEMU shows a disk of the footer's geometry for makers that it does not know, which is
// never more than a few cylinders shorter. The logical sector is always 512 bytes.
//
// What is written. Blocks are only ever appended, with their data at a multiple of 4 KiB of the file, and keep their
// place for good. In a dynamic disk all bits of a block are set from the start. Unmap leaves a block allocated and
// punches its data out of the host's file. A differencing disk has no state for zeros: zeros over the parent's data
// are sectors of the file that are never written, or punched, and Extents tells them from data by asking the
// host's filesystem, after a sync of what may have changed.
//
// Invariants. The file never ends in a guest's data, which could pass for a footer: it grows in large steps, each
// durable with the new footer at its end before anything is placed there, and Close cuts what was not used. Space
// beyond the old end reads as zeros, so a new block needs no writing but for what is written to it. Metadata stays
// in memory until Flush, within a bound: when too much is dirty, a write flushes first.
//
//	WriteAt: find the block a place; write the data; then set its bits
//	Flush:   note the changed windows of the BAT and the changed bitmaps
//	         write the bitmaps of new blocks; sync: data, bitmaps and the file's size are durable
//	         write the other bitmaps and the BAT; sync
//
// After a crash the file opens and holds every flushed sector, or what was written to that sector since. What is
// lost of an unfinished Flush are blocks without a place in the BAT; their space is leaked.
//
// Which footer counts. A valid footer at the end that says "fixed" makes the file a fixed disk, whatever its first
// sector holds, for that belongs to the guest. Otherwise the copy in the first sector counts, where data never
// goes, and the one at the end only when the copy is damaged. SetIdentity writes the copy first: that write alone
// decides between the old identity and the new one. Opening for writing mends the footer that does not count.
//
// The header is changed by Seal alone. Its two sectors may survive a crash one without the other, so the new header
// is first made durable in the sectors behind it, where a reader that finds the header's checksum wrong takes it.
package vhd
