package event

import (
	"fmt"
	"strconv"
	"time"

	"vmreplica/internal/failure"
)

// WillRetry is a failure after which the agent tries again by itself.
func WillRetry(vm, disk, reason, message string, in time.Duration) Event {
	return New(TypeResyncInterrupted, vm, disk, fmt.Sprintf("%s It is tried again in %s.", sentence(message), Span(in)),
		map[string]string{"reason": reason, "retry_in": in.String()})
}

// OperationFailed is an operation that was asked for and did not succeed.
func OperationFailed(vm, disk, operation, reason, message string) Event {
	return New(TypeOperationFailed, vm, disk, fmt.Sprintf("The operation %s failed: %s", operation, message),
		map[string]string{"operation": operation, "reason": reason})
}

// SuspendedByError is a replication that the agent suspended because time alone does not help.
func SuspendedByError(vm, disk, reason, message string) Event {
	return New(TypeSuspendedByError, vm, disk, "Replication was suspended because of an error: "+message,
		map[string]string{"reason": reason})
}

// ReplicaPrepared is a VM whose replica has its disks on this host.
func ReplicaPrepared(vm, primary string, disks int) Event {
	return New(TypeCreated, vm, "", "The replica of the virtual machine is prepared.",
		map[string]string{"primary": primary, "disks": strconv.Itoa(disks)})
}

// ReplicationRemoved is a VM that is replicated no longer.
func ReplicationRemoved(vm, replica string) Event {
	return New(TypeRemoved, vm, "", "Replication to "+replica+" was removed.", map[string]string{"replica": replica})
}

// ReplicationSuspended is a replication that an operator suspended.
func ReplicationSuspended(vm, reason string) Event {
	message := "Replication was suspended."
	if reason != "" {
		message = "Replication was suspended: " + reason
	}
	return New(TypeSuspended, vm, "", message, map[string]string{"reason": reason})
}

// ReplicationResumed is a replication that goes on.
func ReplicationResumed(vm string) Event {
	return New(TypeResumed, vm, "", "Replication was resumed.", nil)
}

// ConnectionLost is a peer that no longer answers; vm is empty when it is not about one VM.
func ConnectionLost(vm, peer, message string) Event {
	return New(TypeConnectionLost, vm, "", fmt.Sprintf("The connection to %s was lost: %s", peer, message),
		map[string]string{"peer": peer})
}

// ConnectionRecovered is a peer that answers again.
func ConnectionRecovered(vm, peer string, attempts int, after time.Duration) Event {
	return New(TypeConnectionRecovered, vm, "",
		fmt.Sprintf("The connection to %s recovered after %s and %s.", peer, Count(int64(attempts), "attempt"), Span(after)),
		map[string]string{"peer": peer, "attempts": strconv.Itoa(attempts), "duration": after.String()})
}

// StorageFull is an operation that waits for space.
func StorageFull(vm, disk, path string, free int64) Event {
	return New(TypeStorageFull, vm, disk, fmt.Sprintf("There is no room left at %s. Work goes on when there is.", path),
		map[string]string{"path": path, "free_bytes": strconv.FormatInt(free, 10)})
}

// StorageRecovered is space that is there again.
func StorageRecovered(vm, disk, path string, free int64) Event {
	return New(TypeStorageRecovered, vm, disk, fmt.Sprintf("There is room at %s again.", path),
		map[string]string{"path": path, "free_bytes": strconv.FormatInt(free, 10)})
}

// ImageInUse is an image that another program has open; message says which.
func ImageInUse(vm, disk, message string) Event {
	return New(TypeImageInUse, vm, disk, sentence(message), map[string]string{"reason": failure.ReasonImageInUse})
}

// BaseAdopted is a file that was there and serves as a replica's base after everything is compared.
func BaseAdopted(vm, disk, path string) Event {
	return New(TypeBaseAdopted, vm, disk, fmt.Sprintf("The file %s was adopted as the base of disk %s.", path, disk),
		map[string]string{"path": path})
}

// CertificateReloaded is a new certificate in use.
func CertificateReloaded(identity string, notAfter time.Time) Event {
	end := notAfter.UTC().Format(time.RFC3339)
	return New(TypeCertificateReloaded, "", "", fmt.Sprintf("The certificate of %s was reloaded, valid until %s.", identity, end),
		map[string]string{"identity": identity, "not_after": end})
}

// CertificateRejected is a new certificate that cannot be used; the old one stays.
func CertificateRejected(directory, message string) Event {
	return New(TypeCertificateRejected, "", "",
		fmt.Sprintf("The new certificate in %s was rejected and the old one stays in use: %s", directory, message),
		map[string]string{"directory": directory})
}

// AuthorizationCreated is primaries that may replicate to this agent from now on.
func AuthorizationCreated(pattern, storage string) Event {
	return New(TypeAuthorizationCreated, "", "", fmt.Sprintf("%s may replicate to %s.", pattern, storage),
		map[string]string{"pattern": pattern, "storage": storage})
}

// AuthorizationDeleted is primaries that no longer may.
func AuthorizationDeleted(pattern string) Event {
	return New(TypeAuthorizationDeleted, "", "", pattern+" may no longer replicate to this agent.",
		map[string]string{"pattern": pattern})
}
