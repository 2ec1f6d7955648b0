package disk

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Stamp is what is remembered of an image when it is closed, or when a pass over it begins. It notices that
// another program changed the image; it is detection, not proof: a change that restores every field, or one to
// the medium below, is not seen.
type Stamp struct {
	// Device and Inode name the file; for a block device Device is its own number and Inode 0.
	Device, Inode uint64
	// SizeBytes is the image's size.
	SizeBytes int64
	// ModifiedNanoseconds and ChangedNanoseconds are mtime and ctime since the epoch; 0 for a block device.
	ModifiedNanoseconds, ChangedNanoseconds int64
	// BootID, DiskSequence and SectorsWritten are a block device's: its counters mean something only within one
	// boot, so another BootID means unknown. SectorsWritten counts discarded sectors too, of 512 bytes.
	BootID         string
	DiskSequence   uint64
	SectorsWritten uint64
	// Serial is what a block device calls itself; empty where it does not say.
	Serial string
	// Backing is a digest of the stamps of the files that a differencing disk stands on; empty for one that stands alone.
	Backing string
}

// On is the stamp of an image that stands on others, the nearest first: it differs when one of them does. On nothing it
// is s.
func (s Stamp) On(below ...Stamp) Stamp {
	if len(below) == 0 {
		return s
	}
	digest := sha256.New()
	for _, parent := range below {
		fmt.Fprintf(digest, "%d %d %d %d %d %q %d %d %q %q\n", parent.Device, parent.Inode, parent.SizeBytes,
			parent.ModifiedNanoseconds, parent.ChangedNanoseconds, parent.BootID, parent.DiskSequence, parent.SectorsWritten,
			parent.Serial, parent.Backing)
	}
	s.Backing = hex.EncodeToString(digest.Sum(nil))
	return s
}

// Reverted says of an image that differs whether it may be an older one, or another disk: another file or medium stands in
// its place, its size changed, or its modification time went back. What a device was called is no sign: hosts number
// devices anew when they start.
func (s Stamp) Reverted(now Stamp) bool {
	return s.Inode != now.Inode || s.Serial != now.Serial || s.SizeBytes != now.SizeBytes ||
		s.ModifiedNanoseconds > now.ModifiedNanoseconds
}

// Difference says in words how now differs from s; empty when nothing does.
func (s Stamp) Difference(now Stamp) string {
	switch {
	case s == now:
		return ""
	case s.Device != now.Device || s.Inode != now.Inode:
		return "it is another file or device than before"
	case s.Serial != now.Serial:
		return fmt.Sprintf("the device's serial was %q and is %q", s.Serial, now.Serial)
	case s.SizeBytes != now.SizeBytes:
		return fmt.Sprintf("its size was %d bytes and is %d", s.SizeBytes, now.SizeBytes)
	case s.BootID != now.BootID:
		return "the host has restarted since, and a block device keeps no record of writes across that"
	case s.DiskSequence != now.DiskSequence:
		return "the device was set up anew"
	case s.SectorsWritten != now.SectorsWritten:
		return fmt.Sprintf("%d sectors were written to the device", now.SectorsWritten-s.SectorsWritten)
	case s.Backing != now.Backing:
		return "a file that it stands on is another than before, or was written to"
	case s.ModifiedNanoseconds > now.ModifiedNanoseconds:
		return "it is older than before (its modification time went back)"
	case s.ModifiedNanoseconds != now.ModifiedNanoseconds:
		return "it was written to (its modification time moved)"
	default:
		return "its change time moved"
	}
}
