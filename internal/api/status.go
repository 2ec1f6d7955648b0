package api

import (
	"context"
	"errors"
	"io"
	"strings"
	"unicode"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"vmreplica/internal/failure"
)

// Domain is the domain of every ErrorInfo that the agents send.
const Domain = "vmreplica"

// The metadata keys of an ErrorInfo. A key without a value is left out.
const (
	metadataVM     = "vm"
	metadataDisk   = "disk"
	metadataRemedy = "remedy"
)

// The longest text taken from or put on the wire, in bytes.
const (
	maxMessage = 2048
	maxRemedy  = 1024
	maxName    = 64
)

// classes pairs each class with its code, one to one.
var classes = []pair[failure.Class, codes.Code]{
	{failure.Internal, codes.Internal},
	{failure.Invalid, codes.InvalidArgument},
	{failure.NotFound, codes.NotFound},
	{failure.Exists, codes.AlreadyExists},
	{failure.Precondition, codes.FailedPrecondition},
	{failure.Denied, codes.PermissionDenied},
	{failure.Unreachable, codes.Unavailable},
	{failure.Exhausted, codes.ResourceExhausted},
	{failure.Conflict, codes.Aborted},
	{failure.OutOfRange, codes.OutOfRange},
	{failure.Corrupt, codes.DataLoss},
	{failure.Unsupported, codes.Unimplemented},
	{failure.Cancelled, codes.Canceled},
}

// Status is err as a gRPC status error that carries an ErrorInfo: reason, domain and, where known, vm, disk and
// remedy. The outermost failure in err's chain decides; an ended context that nobody classified is CANCELED or
// DEADLINE_EXCEEDED, a status stays as it is, and anything else is INTERNAL. nil stays nil.
func Status(err error) error {
	if err == nil {
		return nil
	}
	found := failure.Find(err)
	var decided *failure.Error
	if !errors.As(err, &decided) {
		if _, isStatus := status.FromError(err); isStatus {
			return err
		}
	}
	if found.Class == failure.Internal {
		return withInfo(endedContext(found))
	}
	code, known := toProto(classes, found.Class)
	if !known {
		code = codes.Internal
	}
	return withInfo(code, found)
}

// endedContext is the code of a failure that nobody classified: the end of a context is not a fault of ours.
func endedContext(f *failure.Error) (codes.Code, *failure.Error) {
	copied := *f
	switch {
	case errors.Is(f, context.Canceled):
		copied.Reason = failure.ReasonCancelled
		return codes.Canceled, &copied
	case errors.Is(f, context.DeadlineExceeded):
		copied.Reason = failure.ReasonDeadline
		return codes.DeadlineExceeded, &copied
	}
	return codes.Internal, f
}

func withInfo(code codes.Code, f *failure.Error) error {
	info := &errdetails.ErrorInfo{Reason: f.Reason, Domain: Domain, Metadata: map[string]string{}}
	for key, value := range map[string]string{
		metadataVM: clean(f.VM, maxName), metadataDisk: clean(f.Disk, maxName), metadataRemedy: clean(f.Remedy, maxRemedy),
	} {
		if value != "" {
			info.Metadata[key] = value
		}
	}
	bare := status.New(code, clean(f.Message, maxMessage))
	detailed, err := bare.WithDetails(info)
	if err != nil {
		return bare.Err()
	}
	return detailed.Err()
}

// FromStatus is the failure that a call answered. One that an agent sent comes back as it was; without an
// ErrorInfo of ours the gRPC library or something between the hosts spoke, and UNAVAILABLE, DEADLINE_EXCEEDED,
// INTERNAL and UNKNOWN mean that the peer could not be reached: class Unreachable, reason REPLICA_UNREACHABLE. nil
// and io.EOF stay as they are, and so does what is a failure already.
func FromStatus(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	var already *failure.Error
	if errors.As(err, &already) {
		return err
	}
	answered, isStatus := status.FromError(err)
	if !isStatus {
		answered = status.FromContextError(err)
	}
	for _, detail := range answered.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == Domain {
			return fromInfo(answered, info, err)
		}
	}
	return undetailed(answered, err)
}

// FromCall is FromStatus for a call made under ctx. Once ctx has ended its cause is the answer, whatever the call
// said; while it lives, CANCELED without a detail means that the other side went away.
func FromCall(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	cause := context.Cause(ctx)
	if cause == nil {
		found := FromStatus(err)
		if failure.Find(found).Class == failure.Cancelled {
			return failure.New(failure.Unreachable, failure.ReasonReplicaUnreachable, "the other side ended the call: %w", err)
		}
		return found
	}
	var decided *failure.Error
	if errors.As(cause, &decided) {
		return cause
	}
	return FromStatus(cause)
}

func fromInfo(answered *status.Status, info *errdetails.ErrorInfo, err error) error {
	class, known := toDomain(classes, answered.Code())
	switch {
	case answered.Code() == codes.DeadlineExceeded:
		class = failure.Unreachable
	case !known:
		class = failure.Internal
	}
	return &failure.Error{
		Class:   class,
		Reason:  clean(info.GetReason(), maxName),
		VM:      clean(info.GetMetadata()[metadataVM], maxName),
		Disk:    clean(info.GetMetadata()[metadataDisk], maxName),
		Message: clean(answered.Message(), maxMessage),
		Remedy:  clean(info.GetMetadata()[metadataRemedy], maxRemedy),
		Err:     err,
	}
}

// undetailedReasons are those of what the gRPC library or something between the hosts answered, by class.
var undetailedReasons = map[failure.Class]string{
	failure.Cancelled: failure.ReasonCancelled, failure.Invalid: failure.ReasonInvalidArgument,
	failure.NotFound: failure.ReasonNotFound, failure.Exists: failure.ReasonAlreadyExists,
	failure.Denied: failure.ReasonNotAuthorized, failure.Exhausted: failure.ReasonLimit,
	failure.Precondition: failure.ReasonWrongState, failure.Conflict: failure.ReasonWrongState,
	failure.OutOfRange: failure.ReasonInvalidArgument, failure.Unsupported: failure.ReasonUnsupported,
	failure.Corrupt: failure.ReasonProtocol,
}

func undetailed(answered *status.Status, err error) error {
	code := answered.Code()
	if code == codes.Unauthenticated {
		code = codes.PermissionDenied
	}
	class, _ := toDomain(classes, code)
	reason, known := undetailedReasons[class]
	if !known {
		class, reason = failure.Unreachable, failure.ReasonReplicaUnreachable
	}
	return &failure.Error{Class: class, Reason: reason, Message: clean(answered.Message(), maxMessage), Err: err}
}

// clean makes text fit to be logged and printed: valid UTF-8, no control characters, at most limit bytes.
func clean(text string, limit int) string {
	if len(text) > limit {
		text = text[:limit-len("…")]
		text = strings.ToValidUTF8(text, "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
}
