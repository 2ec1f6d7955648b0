package api_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"vmreplica/internal/api"
	"vmreplica/internal/event"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

func TestEventOnTheWire(t *testing.T) {
	at := time.Date(2026, 11, 22, 10, 0, 0, 5, time.UTC)
	for severity, number := range map[event.Severity]vmreplicav1.Severity{
		event.Information: vmreplicav1.Severity_SEVERITY_INFORMATION, event.Warning: vmreplicav1.Severity_SEVERITY_WARNING,
		event.Error: vmreplicav1.Severity_SEVERITY_ERROR,
	} {
		got := api.EventToProto(event.Event{
			ID: 29244, Sequence: 7, Time: at, Severity: severity, Type: "resync.finished", VM: "web01", Disk: "root",
			Message: "Done.", Details: map[string]string{"bytes": "4096"},
		})
		want := &vmreplicav1.Event{
			Id: 29244, Sequence: 7, Time: timestamppb.New(at), Severity: number, Type: "resync.finished", Vm: "web01",
			Disk: "root", Message: "Done.", Details: map[string]string{"bytes": "4096"},
		}
		if !proto.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	hostile := api.EventToProto(event.Event{Severity: event.Error, Message: "a\x1b[2Jb\xff", Details: map[string]string{"k\n": "\x00"}})
	if hostile.GetMessage() != "a [2Jb\uFFFD" || hostile.GetDetails()["k "] != " " {
		t.Errorf("control characters passed: %q %q", hostile.GetMessage(), hostile.GetDetails())
	}
	if got := api.SeverityToProto(99); got != vmreplicav1.Severity_SEVERITY_UNSPECIFIED {
		t.Errorf("an unknown severity is %v", got)
	}
}
