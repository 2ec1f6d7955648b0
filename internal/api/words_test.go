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
	prefix    string
	numbers   protoreflect.EnumDescriptor
	none      bool // the domain has a word for UNSPECIFIED
	toProto   func(uint8) protoreflect.EnumNumber
	fromProto func(protoreflect.EnumNumber) (uint8, error)
	name      func(uint8) string
}

func of[D ~uint8, P interface {
	~int32
	protoreflect.Enum
}](prefix string, to func(D) P, from func(P) (D, error), name func(D) string) enumeration {
	return enumeration{
		prefix:  prefix,
		numbers: P(0).Descriptor(),
		toProto: func(v uint8) protoreflect.EnumNumber { return to(D(v)).Number() },
		fromProto: func(n protoreflect.EnumNumber) (uint8, error) {
			v, err := from(P(n))
			return uint8(v), err
		},
		name: func(v uint8) string { return name(D(v)) },
	}
}

func stringer[D fmt.Stringer](d D) string { return d.String() }

func healthName(h replication.Health) string {
	return map[replication.Health]string{
		replication.HealthNormal: "Normal", replication.HealthWarning: "Warning", replication.HealthCritical: "Critical",
	}[h]
}

func enumerations() map[string]enumeration {
	cause := of("RESYNC_CAUSE_", api.CauseToProto, api.CauseFromProto, stringer)
	cause.none = true
	return map[string]enumeration{
		"State":        of("REPLICATION_STATE_", api.StateToProto, api.StateFromProto, stringer),
		"Activity":     of("ACTIVITY_", api.ActivityToProto, api.ActivityFromProto, stringer),
		"Health":       of("HEALTH_", api.HealthToProto, api.HealthFromProto, healthName),
		"Cause":        cause,
		"ResyncKind":   of("RESYNC_KIND_", api.ResyncKindToProto, api.ResyncKindFromProto, stringer),
		"TransferKind": of("TRANSFER_KIND_", api.TransferKindToProto, api.TransferKindFromProto, stringer),
		"ResyncState":  of("RESYNC_STATE_", api.ResyncStateToProto, api.ResyncStateFromProto, stringer),
	}
}

func TestEveryNumberOfTheWireIsAWordOfTheSameName(t *testing.T) {
	for title, e := range enumerations() {
		t.Run(title, func(t *testing.T) {
			for i := range e.numbers.Values().Len() {
				value := e.numbers.Values().Get(i)
				word, err := e.fromProto(value.Number())
				if value.Number() == 0 && !e.none {
					if failure.Find(err).Class != failure.Invalid {
						t.Errorf("%s: got %v, want a failure of class Invalid", value.Name(), err)
					}
					continue
				}
				if err != nil {
					t.Fatalf("%s: %v", value.Name(), err)
				}
				if back := e.toProto(word); back != value.Number() {
					t.Errorf("%s comes back as %d", value.Name(), back)
				}
				want := strings.TrimPrefix(string(value.Name()), e.prefix)
				if got := snake(e.name(word)); value.Number() != 0 && got != want {
					t.Errorf("%s is the word %s", value.Name(), got)
				}
			}
			if _, err := e.fromProto(9999); failure.Find(err).Class != failure.Invalid {
				t.Errorf("an unknown number: got %v, want a failure of class Invalid", err)
			}
		})
	}
}

func TestEveryWordOfTheDomainHasANumber(t *testing.T) {
	for title, e := range enumerations() {
		t.Run(title, func(t *testing.T) {
			words := 0
			for v := range 256 {
				number, known := e.toProto(uint8(v)), e.name(uint8(v)) != e.name(255)
				if known {
					words++
				}
				if known != (number != 0) {
					t.Errorf("word %d (%s) has number %d", v, e.name(uint8(v)), number)
				}
			}
			if want := e.numbers.Values().Len() - 1; words != want {
				t.Errorf("%d words for %d numbers", words, want)
			}
		})
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
