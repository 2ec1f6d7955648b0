package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"vmreplica/internal/api"
	"vmreplica/internal/failure"
)

// overTheWire marshals the status as gRPC does and reads it again.
func overTheWire(t *testing.T, err error) error {
	t.Helper()
	raw, marshalErr := proto.Marshal(status.Convert(err).Proto())
	if marshalErr != nil {
		t.Fatal(marshalErr)
	}
	read := status.New(codes.OK, "").Proto()
	if err := proto.Unmarshal(raw, read); err != nil {
		t.Fatal(err)
	}
	return status.FromProto(read).Err()
}

func TestEveryClassComesBackAsItWas(t *testing.T) {
	want := map[failure.Class]codes.Code{
		failure.Internal: codes.Internal, failure.Invalid: codes.InvalidArgument, failure.NotFound: codes.NotFound,
		failure.Exists: codes.AlreadyExists, failure.Precondition: codes.FailedPrecondition,
		failure.Denied: codes.PermissionDenied, failure.Unreachable: codes.Unavailable,
		failure.Exhausted: codes.ResourceExhausted, failure.Conflict: codes.Aborted,
		failure.OutOfRange: codes.OutOfRange, failure.Corrupt: codes.DataLoss,
		failure.Unsupported: codes.Unimplemented, failure.Cancelled: codes.Canceled,
	}
	for class := failure.Internal; class <= failure.Cancelled; class++ {
		sent := failure.New(class, "SOME_REASON", "it went wrong: %w", io.ErrUnexpectedEOF).
			On("web01", "root").Try("Do this.")
		answered := overTheWire(t, api.Status(fmt.Errorf("begin transfer: %w", sent)))
		if got := status.Code(answered); got != want[class] {
			t.Errorf("class %d is %v, want %v", class, got, want[class])
		}
		got := failure.Find(api.FromStatus(answered))
		if got.Class != class || got.Reason != sent.Reason || got.VM != "web01" || got.Disk != "root" ||
			got.Message != sent.Message || got.Remedy != sent.Remedy {
			t.Errorf("class %d: sent %+v, got %+v", class, *sent, *got)
		}
		if failure.Retryable(got) != failure.Retryable(sent) {
			t.Errorf("class %d: whether to retry changed", class)
		}
	}
}

func TestErrorInfoNamesTheDomainAndOnlyWhatIsKnown(t *testing.T) {
	answered := api.Status(failure.New(failure.NotFound, failure.ReasonNotFound, "no such VM").On("web01", ""))
	details := status.Convert(answered).Details()
	if len(details) != 1 {
		t.Fatalf("%d details, want 1", len(details))
	}
	info := details[0].(*errdetails.ErrorInfo)
	if info.GetDomain() != "vmreplica" || info.GetReason() != "NOT_FOUND" {
		t.Errorf("got %v", info)
	}
	if len(info.GetMetadata()) != 1 || info.GetMetadata()["vm"] != "web01" {
		t.Errorf("metadata %v, want vm alone", info.GetMetadata())
	}
}

func TestErrorsThatAreNoFailures(t *testing.T) {
	foreign := status.Error(codes.Unauthenticated, "who is that")
	for name, c := range map[string]struct {
		err    error
		code   codes.Code
		reason string
	}{
		"nothing":                 {nil, codes.OK, ""},
		"an ended context":        {fmt.Errorf("read: %w", context.Canceled), codes.Canceled, failure.ReasonCancelled},
		"a passed deadline":       {fmt.Errorf("read: %w", context.DeadlineExceeded), codes.DeadlineExceeded, failure.ReasonDeadline},
		"an ended context, named": {failure.Locate(context.Canceled, "web01", ""), codes.Canceled, failure.ReasonCancelled},
		"a status":                {foreign, codes.Unauthenticated, ""},
		"any other":               {errors.New("unforeseen"), codes.Internal, failure.ReasonInternal},
		"a classified context": {
			failure.New(failure.Unreachable, failure.ReasonNoProgress, "nothing moved: %w", context.Canceled),
			codes.Unavailable, failure.ReasonNoProgress,
		},
	} {
		t.Run(name, func(t *testing.T) {
			answered := api.Status(c.err)
			if got := status.Code(answered); got != c.code {
				t.Errorf("got %v, want %v", got, c.code)
			}
			if c.reason != "" && failure.Find(api.FromStatus(answered)).Reason != c.reason {
				t.Errorf("got %+v, want reason %s", failure.Find(api.FromStatus(answered)), c.reason)
			}
		})
	}
}

func TestEveryCodeWithoutADetailHasAClass(t *testing.T) {
	want := map[codes.Code]failure.Class{
		codes.Canceled: failure.Cancelled, codes.Unknown: failure.Unreachable, codes.InvalidArgument: failure.Invalid,
		codes.DeadlineExceeded: failure.Unreachable, codes.NotFound: failure.NotFound,
		codes.AlreadyExists: failure.Exists, codes.PermissionDenied: failure.Denied,
		codes.ResourceExhausted: failure.Exhausted, codes.FailedPrecondition: failure.Precondition,
		codes.Aborted: failure.Conflict, codes.OutOfRange: failure.OutOfRange,
		codes.Unimplemented: failure.Unsupported, codes.Internal: failure.Unreachable,
		codes.Unavailable: failure.Unreachable, codes.DataLoss: failure.Corrupt, codes.Unauthenticated: failure.Denied,
	}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		got := failure.Find(api.FromStatus(status.Error(code, "text")))
		if got.Class != want[code] || got.Reason == "" || got.Message != "text" {
			t.Errorf("%v: got %+v, want class %d", code, got, want[code])
		}
		if got.Class == failure.Unreachable && got.Reason != failure.ReasonReplicaUnreachable {
			t.Errorf("%v: reason %s", code, got.Reason)
		}
	}
}

func TestAnotherDomainsDetailIsNotOurs(t *testing.T) {
	theirs, err := status.New(codes.NotFound, "gone").WithDetails(&errdetails.ErrorInfo{Reason: "X", Domain: "elsewhere"})
	if err != nil {
		t.Fatal(err)
	}
	if got := failure.Find(api.FromStatus(theirs.Err())); got.Reason != failure.ReasonNotFound {
		t.Errorf("reason %s, want %s", got.Reason, failure.ReasonNotFound)
	}
}

func TestWhatIsDecidedStays(t *testing.T) {
	own := failure.New(failure.Corrupt, failure.ReasonProofFailed, "no")
	for _, err := range []error{nil, io.EOF, error(own)} {
		if got := api.FromStatus(err); got != err {
			t.Errorf("FromStatus(%v) = %v", err, got)
		}
	}
}

func TestACallIsJudgedByItsContext(t *testing.T) {
	cancelled := status.Error(codes.Canceled, "context canceled")
	alive := t.Context()
	stopped, stop := context.WithCancel(alive)
	stop()
	watchdog := failure.New(failure.Unreachable, failure.ReasonNoProgress, "nothing moved for 60 s")
	barked, bark := context.WithCancelCause(alive)
	bark(watchdog)

	if got := failure.Find(api.FromCall(alive, cancelled)); got.Class != failure.Unreachable {
		t.Errorf("the other side's cancel: %+v, want class Unreachable", got)
	}
	if got := failure.Find(api.FromCall(stopped, cancelled)); got.Class != failure.Cancelled {
		t.Errorf("our own cancel: %+v, want class Cancelled", got)
	}
	if got := failure.Find(api.FromCall(barked, cancelled)); got.Reason != failure.ReasonNoProgress {
		t.Errorf("a cause: %+v, want reason %s", got, failure.ReasonNoProgress)
	}
	if got := api.FromCall(barked, io.EOF); got != io.EOF {
		t.Errorf("the end of a stream: %v", got)
	}
}

func TestTextOfTheOtherSideIsBoundedAndPlain(t *testing.T) {
	hostile := strings.Repeat("é\x1b[2J\n\u202e", 4000) + "\xff"
	answered, err := status.New(codes.NotFound, strings.ToValidUTF8(hostile, "?")).WithDetails(&errdetails.ErrorInfo{
		Reason: strings.Repeat("R", 5000), Domain: api.Domain,
		Metadata: map[string]string{"vm": "a\nb", "remedy": strings.ToValidUTF8(hostile, "?")},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := failure.Find(api.FromStatus(answered.Err()))
	for what, text := range map[string]string{
		"message": got.Message, "remedy": got.Remedy, "reason": got.Reason, "vm": got.VM,
	} {
		if len(text) > 2048 || !utf8.ValidString(text) || strings.ContainsAny(text, "\x1b\n\u202e") {
			t.Errorf("%s: %d bytes, %.40q", what, len(text), text)
		}
	}
	if got.VM != "a b" {
		t.Errorf("vm %q", got.VM)
	}
	sent := overTheWire(t, api.Status(failure.New(failure.Invalid, "R", "the path %s", hostile)))
	if len(status.Convert(sent).Details()) != 1 || !utf8.ValidString(status.Convert(sent).Message()) {
		t.Errorf("a message that is not UTF-8 lost its detail: %.80q", sent.Error())
	}
}
