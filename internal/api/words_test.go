package api_test

import (
	"fmt"
	"strings"
	"testing"
	"unicode"

	"google.golang.org/protobuf/reflect/protoreflect"

	"vmreplica/internal/api"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// enumeration is one word of the domain beside its enum.
type enumeration struct {
	prefix  string
	numbers protoreflect.EnumDescriptor
	toProto func(uint8) protoreflect.EnumNumber
	name    func(uint8) string
}

func of[D ~uint8, P interface {
	~int32
	protoreflect.Enum
}](prefix string, to func(D) P, name func(D) string) enumeration {
	return enumeration{
		prefix:  prefix,
		numbers: P(0).Descriptor(),
		toProto: func(v uint8) protoreflect.EnumNumber { return to(D(v)).Number() },
		name:    func(v uint8) string { return name(D(v)) },
	}
}

func stringer[D fmt.Stringer](d D) string { return d.String() }

func healthName(h replication.Health) string {
	return map[replication.Health]string{
		replication.HealthNormal: "Normal", replication.HealthWarning: "Warning", replication.HealthCritical: "Critical",
	}[h]
}

// resyncKindName is a kind's name to an operator, to whom a delta is no resync.
func resyncKindName(k replication.ResyncKind) string {
	if k == replication.KindDelta {
		return replication.ResyncKind(255).String()
	}
	return k.String()
}

func enumerations() map[string]enumeration {
	return map[string]enumeration{
		"State":        of("REPLICATION_STATE_", api.StateToProto, stringer),
		"Activity":     of("ACTIVITY_", api.ActivityToProto, stringer),
		"Health":       of("HEALTH_", api.HealthToProto, healthName),
		"Cause":        of("RESYNC_CAUSE_", api.CauseToProto, stringer),
		"ResyncKind":   of("RESYNC_KIND_", api.ResyncKindToProto, resyncKindName),
		"TransferKind": of("TRANSFER_KIND_", api.TransferKindToProto, stringer),
		"ResyncState":  of("RESYNC_STATE_", api.ResyncStateToProto, stringer),
	}
}

func TestEveryWordOfTheDomainIsANumberOfTheSameName(t *testing.T) {
	for title, e := range enumerations() {
		t.Run(title, func(t *testing.T) {
			words := 0
			for v := range 256 {
				number, known := e.toProto(uint8(v)), e.name(uint8(v)) != e.name(255)
				if known != (number != 0) {
					t.Errorf("word %d (%s) has number %d", v, e.name(uint8(v)), number)
				}
				if !known {
					continue
				}
				words++
				want := e.prefix + snake(e.name(uint8(v)))
				if got := string(e.numbers.Values().ByNumber(number).Name()); got != want {
					t.Errorf("the word %s is %s on the wire", e.name(uint8(v)), got)
				}
			}
			if want := e.numbers.Values().Len() - 1; words != want {
				t.Errorf("%d words for %d numbers", words, want)
			}
		})
	}
}

func TestKindsFromTheWire(t *testing.T) {
	numbers := vmreplicav1.ResyncKind(0).Descriptor().Values()
	for i := range numbers.Len() {
		number := vmreplicav1.ResyncKind(numbers.Get(i).Number())
		kind, err := api.ResyncKindFromProto(number)
		if (err == nil) != (number != vmreplicav1.ResyncKind_RESYNC_KIND_UNSPECIFIED) {
			t.Errorf("%v: %v", number, err)
		}
		if err == nil && api.ResyncKindToProto(kind) != number {
			t.Errorf("%v comes back as %v", number, api.ResyncKindToProto(kind))
		}
	}
	if _, err := api.ResyncKindFromProto(99); failure.Find(err).Class != failure.Invalid {
		t.Errorf("an unknown kind: %v, want a failure of class Invalid", err)
	}
}

func TestFormats(t *testing.T) {
	numbers := vmreplicav1.DiskFormat(0).Descriptor().Values()
	for i := range numbers.Len() {
		number := vmreplicav1.DiskFormat(numbers.Get(i).Number())
		format, err := api.FormatFromProto(number)
		if (err == nil) != (number != vmreplicav1.DiskFormat_DISK_FORMAT_UNSPECIFIED) {
			t.Errorf("%v: %v", number, err)
		}
		if err == nil && api.FormatToProto(format) != number {
			t.Errorf("%v comes back as %v", number, api.FormatToProto(format))
		}
	}
	if base, err := api.BaseFormatFromProto(0); err != nil || base != replication.FormatRaw {
		t.Errorf("a base of no stated format is %q, %v", base, err)
	}
	for _, policy := range []replication.Differencing{replication.DifferencingByBase, replication.DifferencingQCOW2} {
		if back, err := api.DifferencingFromProto(api.DifferencingToProto(policy)); err != nil || back != policy {
			t.Errorf("the policy %q comes back as %q, %v", policy, back, err)
		}
	}
	if got := api.FormatToProto("qcow9"); got != vmreplicav1.DiskFormat_DISK_FORMAT_UNSPECIFIED {
		t.Errorf("an unknown format is %v", got)
	}
}

// snake is CamelCase as the wire writes it.
func snake(word string) string {
	var out strings.Builder
	for i, r := range word {
		if i > 0 && unicode.IsUpper(r) {
			out.WriteByte('_')
		}
		out.WriteRune(unicode.ToUpper(r))
	}
	return out.String()
}
