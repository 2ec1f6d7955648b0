package primary

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"vmreplica/internal/failure"
	"vmreplica/internal/state"
	"vmreplica/transport"
)

// callers names mutating calls by who makes them.
type callers struct{}

// identified is a message with a request id.
type identified interface {
	proto.Message
	GetRequestId() string
}

// request names a call, so that the same one again is answered the same.
func (callers) request(ctx context.Context, message identified) (state.Request, error) {
	if message.GetRequestId() == "" {
		return state.Request{}, nil
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		return state.Request{}, failure.New(failure.Invalid, failure.ReasonInvalidArgument, "%w", err)
	}
	identity, _ := transport.PeerIdentity(ctx)
	method, _ := grpc.Method(ctx)
	return state.Request{Caller: identity.String(), ID: message.GetRequestId(), Method: method, Body: body}, nil
}

// Entries of a page: what is answered when no size is given, and at most.
const (
	defaultPage = 100
	mostPage    = 1000
)

func checkPageSize(size int32) error {
	if size < 0 || size > mostPage {
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "a page has 1 to %d entries, not %d", mostPage, size)
	}
	return nil
}

// pageOf is the page of rows after the token, which is the key of the last row before it. Rows are ordered by key.
func pageOf[T any](rows []T, key func(T) string, size int32, token string) (page []T, next string, err error) {
	if err := checkPageSize(size); err != nil {
		return nil, "", err
	}
	if size == 0 {
		size = defaultPage
	}
	for _, row := range rows {
		if token != "" && key(row) <= token {
			continue
		}
		if len(page) == int(size) {
			return page, key(page[len(page)-1]), nil
		}
		page = append(page, row)
	}
	return page, "", nil
}
