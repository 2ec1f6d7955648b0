package replica

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"vmreplica/internal/failure"
	"vmreplica/internal/state"
	"vmreplica/transport"
)

// requests repeats the answer of a mutating call whose request id it has seen.
type requests struct {
	store state.Store
	kept  state.Requests
}

func newRequests(store state.Store) *requests {
	return &requests{store: store, kept: state.Requests{Clock: time.Now}}
}

// request names a call of whoever is at the other end of ctx.
func request(ctx context.Context, message proto.Message, id string) (state.Request, error) {
	caller, _ := transport.PeerIdentity(ctx)
	method, _ := grpc.Method(ctx)
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	return state.Request{Caller: caller.String(), ID: id, Method: method, Body: body}, err
}

// remember does work in one transaction with the keeping of its answer, or fills answer with what the same request
// was answered before.
func remember[M proto.Message](ctx context.Context, r *requests, message proto.Message, id string, answer M,
	work func(state.Tx) (M, error)) (M, error) {
	named, err := request(ctx, message, id)
	if err != nil {
		return answer, err
	}
	var kept []byte
	err = r.store.Update(func(tx state.Tx) error {
		var err error
		kept, err = r.kept.Do(tx, named, func() ([]byte, error) {
			done, err := work(tx)
			if err != nil {
				return nil, err
			}
			return proto.Marshal(done)
		})
		return err
	})
	if err != nil {
		var none M
		return none, err
	}
	return answer, proto.Unmarshal(kept, answer)
}

// errNew says that a request has not been answered before.
var errNew = errors.New("a new request")

// rememberAfter is remember for work that takes transactions of its own: its answer is kept after it. A repetition
// between the two finds the work done and answers as the work does then.
func rememberAfter[M proto.Message](ctx context.Context, r *requests, message proto.Message, id string, answer M,
	work func() (M, error)) (M, error) {
	var none M
	before, err := remember(ctx, r, message, id, answer, func(state.Tx) (M, error) { return none, errNew })
	if err == nil {
		return before, nil
	}
	if !errors.Is(err, errNew) {
		return none, err
	}
	done, err := work()
	if err != nil {
		return none, err
	}
	if _, err := remember(ctx, r, message, id, answer, func(state.Tx) (M, error) { return done, nil }); err != nil {
		return none, failure.Locate(err, "", "")
	}
	return done, nil
}
