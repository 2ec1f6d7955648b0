package event

import (
	"fmt"
	"strconv"
)

// TrackingStarted is a VM that was attached through the agent for the first time.
func TrackingStarted(vm string, disks int) Event {
	return New(TypeTrackingStarted, vm, "", fmt.Sprintf("The writes to %s are tracked from now on.", Count(int64(disks), "disk")),
		map[string]string{"disks": strconv.Itoa(disks)})
}

// CycleFailed is a cycle whose changes the replica did not get; they stay marked.
func CycleFailed(vm, disk, reason, message string) Event {
	return New(TypeCycleFailed, vm, disk, "The changes could not be replicated, and stay marked: "+message,
		map[string]string{"reason": reason})
}

// ChurnExceedsLink is a machine that writes faster than its changes can be sent.
func ChurnExceedsLink(vm string, writtenBytesPerSecond, sentBytesPerSecond int64) Event {
	return New(TypeChurn, vm, "", fmt.Sprintf("The machine writes %s/s and %s/s are sent.", Size(writtenBytesPerSecond),
		Size(sentBytesPerSecond)), map[string]string{
		"written_bytes_per_second": strconv.FormatInt(writtenBytesPerSecond, 10),
		"sent_bytes_per_second":    strconv.FormatInt(sentBytesPerSecond, 10),
	})
}

// Superseded is a primary whose replica was failed over to.
func Superseded(vm, message string) Event {
	return New(TypeSuperseded, vm, "", "The replica refused this primary for good: "+message, nil)
}
