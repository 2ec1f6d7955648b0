// Package tracking knows how the disks of a virtual machine are read and written while they are replicated, and what is
// remembered of them in between.
//
// Vocabulary. A Source is one disk as a pass reads it. A Cut is the instant that a pass stands for. Continuous
// asks whether what was read since a Cut still is the disk at that Cut. A cold image is a disk that no machine
// has open: it is locked as QEMU locks, read, and let go; between two runs only its stamp is remembered. A Disk is one
// of a running machine: each write is marked in its log (package hrl) before it is done. Admission takes the epoch,
// counts the write in and marks it. A cut flips the marks of all disks of a Group at one instant; a round flips
// them as well and freezes nothing. What is flipped is an Epoch, and is shipped. Copy-before-write keeps the content at a
// cut that a later write is about to change.
//
// Invariants. A cold image is opened read-only, by the format that the operator stated, at a path that the agent's
// start-up allows. While its Source is open no virtual machine can start on it, so it is open only while a pass
// reads; a crash leaves nothing behind: the kernel gives the locks back. A Disk's writes go in one order: marked, old
// content kept where a cut has frozen it, written, answered. Only admission is under the gate. A write never waits
// for the replica, the link or memory: what cannot be kept breaks the cut, and a log that fails makes tracking lost,
// durably, before the write is answered; only a loss that nobody could record refuses it. No mark is cleared but by an
// acknowledgement or a Begin. A killed agent finds every block marked that the replica may not have.
package tracking

import (
	"context"

	"vmreplica/internal/disk"
	"vmreplica/internal/replication"
)

// Source is one disk of a virtual machine as a resync reads it. Methods may be called concurrently, but for
// Close.
type Source interface {
	disk.Reader
	// Cut names the present instant. For a cold image it is what the image's stamp is now.
	Cut(ctx context.Context) (Cut, error)
	// Continuous is nil while everything read since the cut belongs to it; else a failure with reason
	// IMAGE_CHANGED that says what was noticed.
	Continuous(since Cut) error
	// Close lets the image go. It may be called once.
	Close() error
}

// Cut is an instant of a disk.
type Cut struct {
	// ID names it; the cuts of one virtual machine's disks share it.
	ID replication.ID
	// Stamp is the image's at that instant, where nothing tracks its writes.
	Stamp disk.Stamp
	// Since is the log's baseline, where writes are tracked: every later one is marked while the log follows it.
	Since replication.ID
}
