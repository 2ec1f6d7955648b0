// Package hrl is the Hyper-V Replica Log of one disk: which of its blocks were written since the replica last
// agreed, kept so that it outlives the agent.
//
// Vocabulary. A mark is one bit. Live marks are set by writes, 4 KiB each. A flip makes them the epoch: what one
// round or cut ships. Shipped marks move to sent, 64 KiB each, where the rounds and the cut of one transfer gather.
// A mark becomes zero only when the commit that holds it is acknowledged (Forget), or when everything is compared
// anyway (Discard); in every other case it returns to live (Restore). The baseline is the instant since which every
// write is marked: a lineage, or the Begin of the resync that will make one. A log is exact while that holds and
// lost when it does not; a lost log goes on marking, only its promise has lapsed.
//
// On disk. A file, its space reserved: two header slots of 4 KiB, then of live, epoch and sent first their summaries
// and then their bits, each from a boundary of 4 KiB. A summary has one bit for each 4 KiB of bits, so that
// finding marks costs nothing where there are none. Bits are words of 64, in the host's order, which is
// little-endian wherever the agents run. 66 MiB for each TiB of disk. The two areas of 4 KiB marks take turns
// at being live; a file that is opened takes both, and sent, as live, so it need not say whose turn it was.
//
// Invariants. The file is mapped shared: an agent that is killed loses no mark, and what the next one finds is
// exact or has marks too many. The header says that the log is open, and in which boot of the host, before the first
// mark is set, and that it was closed, with the image's stamp and a digest of the marks, only after they are
// durable. A header is written to one slot, synced, and then to the other, so that one torn or damaged slot is
// survived. After a power loss the boot id differs and the log is lost. What is lost stays so through closing
// and opening, until Begin.
package hrl

import (
	"errors"
	"fmt"
	"time"
)

// Sizes in bytes.
const (
	// BlockSize is what a live or an epoch mark stands for.
	BlockSize = 4 << 10
	// SentSize is what a sent mark stands for.
	SentSize = 64 << 10

	blocksPerSent = SentSize / BlockSize
)

// ErrPending is answered for a step that would forget marks that nobody has shipped.
var ErrPending = errors.New("marks are pending")

// Cause is why a log is lost.
type Cause uint8

// The causes; None is an exact log.
const (
	None Cause = iota
	// ImageModified: something else wrote to the image while the log was closed.
	ImageModified
	// WriteFailed: the log's own file could not be written.
	WriteFailed
	// NotClosedCleanly: the host was restarted while the log was open.
	NotClosedCleanly
	// Reverted: the log is an older copy, another file, or follows another baseline; or the image may be an older one.
	Reverted
	// TrackingLost: the log is missing, damaged or another disk's, or the image failed under it.
	TrackingLost
)

var causeNames = [...]string{
	"None", "ImageModified", "WriteFailed", "NotClosedCleanly", "Reverted", "TrackingLost",
}

// String is the cause's name.
func (c Cause) String() string {
	if int(c) < len(causeNames) {
		return causeNames[c]
	}
	return "Unknown"
}

// Loss is a cause with what it was seen from, and when; the zero Loss is none.
type Loss struct {
	Cause    Cause
	Evidence string
	At       time.Time
}

// String is the cause in a sentence.
func (l Loss) String() string {
	if l.Cause == None {
		return "exact"
	}
	return fmt.Sprintf("lost (%s): %s", l.Cause, l.Evidence)
}

func now() time.Time { return time.Now().UTC().Round(0) }

// lost makes a Loss of this moment.
func lost(cause Cause, format string, args ...any) Loss {
	return Loss{Cause: cause, Evidence: fmt.Sprintf(format, args...), At: now()}
}
