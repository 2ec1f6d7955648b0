// Package failure is the one error that leaves a room: what happened, to which VM and disk, for whom the
// decision is, and what to do next. Fronts translate it to a gRPC status, the command line to an exit code.
package failure

import (
	"errors"
	"fmt"
	"strings"
)

// Class decides what a caller does with a failure.
type Class uint8

// The classes, each with the gRPC code it becomes.
const (
	Internal     Class = iota // a fault of ours: INTERNAL
	Invalid                   // the request can never work: INVALID_ARGUMENT
	NotFound                  // NOT_FOUND
	Exists                    // ALREADY_EXISTS
	Precondition              // the operator must act first: FAILED_PRECONDITION
	Denied                    // PERMISSION_DENIED
	Unreachable               // goes away by itself, retried with backoff: UNAVAILABLE
	Exhausted                 // space or a limit; retried with backoff: RESOURCE_EXHAUSTED
	Conflict                  // somebody else was first, or an older session: ABORTED
	OutOfRange                // OUT_OF_RANGE
	Corrupt                   // data that fails its check: DATA_LOSS
	Unsupported               // this platform or version cannot: UNIMPLEMENTED
	Cancelled                 // CANCELLED
)

// Error is a failure. Reason is stable, for machines, in capitals; Message is a sentence without the names of
// VM and disk; Remedy is what to do next, empty when nothing helps.
type Error struct {
	Class   Class
	Reason  string
	VM      string
	Disk    string
	Message string
	Remedy  string
	Err     error
}

// New makes a failure; format and args give the message.
func New(class Class, reason, format string, args ...any) *Error {
	wrapped := fmt.Errorf(format, args...)
	return &Error{Class: class, Reason: reason, Message: wrapped.Error(), Err: errors.Unwrap(wrapped)}
}

// On names the VM and disk; an empty name leaves what was there.
func (e *Error) On(vm, disk string) *Error {
	copied := *e
	if vm != "" {
		copied.VM = vm
	}
	if disk != "" {
		copied.Disk = disk
	}
	return &copied
}

// Try adds what to do next.
func (e *Error) Try(format string, args ...any) *Error {
	copied := *e
	copied.Remedy = fmt.Sprintf(format, args...)
	return &copied
}

// Error is "VM web01, disk root: message. remedy".
func (e *Error) Error() string {
	var text strings.Builder
	switch {
	case e.VM != "" && e.Disk != "":
		fmt.Fprintf(&text, "VM %s, disk %s: ", e.VM, e.Disk)
	case e.VM != "":
		fmt.Fprintf(&text, "VM %s: ", e.VM)
	case e.Disk != "":
		fmt.Fprintf(&text, "disk %s: ", e.Disk)
	}
	text.WriteString(e.Message)
	if e.Remedy != "" {
		text.WriteString(". " + e.Remedy)
	}
	return text.String()
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// Find is the outermost failure in err's chain; one made of err itself, class Internal, when there is none.
func Find(err error) *Error {
	var found *Error
	if errors.As(err, &found) {
		return found
	}
	return &Error{Class: Internal, Reason: ReasonInternal, Message: err.Error(), Err: err}
}

// Locate names the VM and disk of err, keeping its class and reason; nil stays nil.
func Locate(err error, vm, disk string) error {
	if err == nil {
		return nil
	}
	found := Find(err)
	if found.VM != "" {
		vm = ""
	}
	if found.Disk != "" {
		disk = ""
	}
	return found.On(vm, disk)
}

// Retryable says whether time alone may cure err.
func Retryable(err error) bool {
	switch Find(err).Class {
	case Unreachable, Exhausted, Conflict:
		return true
	default:
		return false
	}
}
