package api

import (
	"vmreplica/internal/event"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// maxEventText bounds an event's message and each detail on the wire, in bytes: the log keeps no more either.
const maxEventText = 4096

var severities = []pair[event.Severity, vmreplicav1.Severity]{
	{event.Information, vmreplicav1.Severity_SEVERITY_INFORMATION},
	{event.Warning, vmreplicav1.Severity_SEVERITY_WARNING},
	{event.Error, vmreplicav1.Severity_SEVERITY_ERROR},
}

// SeverityToProto is a severity on the wire.
func SeverityToProto(s event.Severity) vmreplicav1.Severity { return enum(severities, s) }

// EventToProto is an event on the wire.
func EventToProto(e event.Event) *vmreplicav1.Event {
	return &vmreplicav1.Event{
		Id: e.ID, Sequence: e.Sequence, Time: TimeToProto(e.Time), Severity: SeverityToProto(e.Severity),
		Type: e.Type, Vm: e.VM, Disk: e.Disk, Message: clean(e.Message, maxEventText), Details: cleanDetails(e.Details),
	}
}

func cleanDetails(details map[string]string) map[string]string {
	cleaned := make(map[string]string, len(details))
	for key, value := range details {
		cleaned[clean(key, maxName)] = clean(value, maxEventText)
	}
	return cleaned
}
