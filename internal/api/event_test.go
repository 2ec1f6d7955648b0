package api_test

import (
	"reflect"
	"testing"
	"time"

	"vmreplica/internal/api"
	"vmreplica/internal/event"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

func TestEventComesBackAsItWas(t *testing.T) {
	numbers := vmreplicav1.Severity(0).Descriptor().Values()
	for i := 1; i < numbers.Len(); i++ {
		number := vmreplicav1.Severity(numbers.Get(i).Number())
		severity, err := api.SeverityFromProto(number)
		if err != nil || api.SeverityToProto(severity) != number {
			t.Fatalf("%v: %v, %v", number, severity, err)
		}
		want := event.Event{
			ID: 29244, Sequence: 7, Time: time.Date(2026, 11, 22, 10, 0, 0, 5, time.UTC), Severity: severity,
			Type: "resync.finished", VM: "web01", Disk: "root", Message: "Done.", Details: map[string]string{"bytes": "4096"},
		}
		got, err := api.EventFromProto(api.EventToProto(want))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	hostile := api.EventToProto(event.Event{Severity: event.Error, Message: "a\x1b[2Jb\xff", Details: map[string]string{"k\n": "\x00"}})
	if hostile.GetMessage() != "a [2Jb\uFFFD" || hostile.GetDetails()["k "] != " " {
		t.Errorf("control characters passed: %q %q", hostile.GetMessage(), hostile.GetDetails())
	}
	if got := api.SeverityToProto(99); got != vmreplicav1.Severity_SEVERITY_UNSPECIFIED {
		t.Errorf("an unknown severity is %v", got)
	}
	if _, err := api.EventFromProto(&vmreplicav1.Event{}); err == nil {
		t.Error("an event without a severity was taken")
	}
}
