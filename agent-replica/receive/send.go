package receive

import (
	"context"
	"sync"

	"google.golang.org/protobuf/proto"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// acknowledgements keeps the newest one until it is sent.
type acknowledgements struct {
	mu      sync.Mutex
	latest  vmreplicav1.TransferAcknowledgement
	changed chan struct{} // has room for one
}

// acknowledge changes the acknowledgement that is sent next.
func (s *session) acknowledge(change func(*vmreplicav1.TransferAcknowledgement)) {
	s.acks.mu.Lock()
	change(&s.acks.latest)
	s.acks.mu.Unlock()
	select {
	case s.acks.changed <- struct{}{}:
	default:
	}
}

// answer hands a message to the sending goroutine, before acknowledgements and digests.
func (s *session) answer(ctx context.Context, response *vmreplicav1.TransferResponse) error {
	select {
	case s.answers <- response:
		return nil
	case <-ctx.Done():
		return ended(ctx)
	}
}

// send sends until the finish was sent.
func (s *session) send(ctx context.Context) error {
	for {
		done, err := s.sendAnswers()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ended(ctx)
		case response := <-s.answers:
			if done, err = s.sendOne(response); done || err != nil {
				return err
			}
		case <-s.acks.changed:
			// What was answered before the acknowledgement was changed goes first: a mismatch before the
			// progress that passes it.
			s.acks.mu.Lock()
			latest := proto.CloneOf(&s.acks.latest)
			s.acks.mu.Unlock()
			if done, err = s.sendAnswers(); done || err != nil {
				return err
			}
			err = s.stream.Send(&vmreplicav1.TransferResponse{
				Message: &vmreplicav1.TransferResponse_Acknowledgement{Acknowledgement: latest},
			})
			if err != nil {
				return err
			}
		case response := <-s.bulk:
			if _, err := s.sendOne(response); err != nil {
				return err
			}
		}
	}
}

// sendAnswers sends the answers that wait.
func (s *session) sendAnswers() (done bool, err error) {
	for {
		select {
		case response := <-s.answers:
			if done, err := s.sendOne(response); done || err != nil {
				return done, err
			}
		default:
			return false, nil
		}
	}
}

func (s *session) sendOne(response *vmreplicav1.TransferResponse) (done bool, err error) {
	return response.GetFinished() != nil, s.stream.Send(response)
}
