package peer_test

import (
	"errors"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"

	"vmreplica/agent-primary/relationship"
	"vmreplica/agent-primary/resync"
	"vmreplica/blockdiff"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	"vmreplica/transport"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

func openStream(t *testing.T, link relationship.Replica) (resync.Stream, error) {
	t.Helper()
	stream, _, err := link.Transfers(blockdiff.BLAKE3).Open(t.Context(), resync.Open{
		Transfer: replication.NewID(), Disk: "root", Session: 1, DigestCreditBytes: 1 << 20,
	})
	return stream, err
}

func opened() *vmreplicav1.TransferResponse {
	return &vmreplicav1.TransferResponse{Message: &vmreplicav1.TransferResponse_Opened{Opened: &vmreplicav1.TransferOpened{
		Cursor:             &vmreplicav1.TransferCursor{Disk: "root", Chain: make([]byte, 32)},
		RefineCreditBlocks: 1, FrameCreditBytes: 1,
	}}}
}

type serverStream = grpc.BidiStreamingServer[vmreplicav1.TransferRequest, vmreplicav1.TransferResponse]

func TestAStreamCarriesEveryMessage(t *testing.T) {
	got := make(chan *vmreplicav1.TransferRequest, 8)
	served := &replica{stream: func(stream serverStream) error {
		if _, err := stream.Recv(); err != nil {
			return err
		}
		if err := stream.Send(opened()); err != nil {
			return err
		}
		for range 5 {
			request, err := stream.Recv()
			if err != nil {
				return err
			}
			got <- request
		}
		return stream.Send(&vmreplicav1.TransferResponse{Message: &vmreplicav1.TransferResponse_Finished{
			Finished: &vmreplicav1.TransferFinished{Root: make([]byte, 32)},
		}})
	}}
	stream, err := openStream(t, newPair(t, "replica", served).link(t))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	payload := make([]byte, 100_000)
	for _, request := range []resync.Request{
		resync.DigestCredit{Bytes: 7}, resync.Refine{Blocks: []int64{1, 5}},
		resync.Frame{Sequence: 1, Frame: blockdiff.Frame{Codec: blockdiff.CodecNone, Payload: payload}},
		resync.Proofs{Runs: []resync.ProofRun{{First: 0, Count: 2, Hashes: make([]blockdiff.Hash, 2)}, {First: 2, Count: 9}}},
		resync.Finish{Root: blockdiff.Hash{1}},
	} {
		if err := stream.Send(request); err != nil {
			t.Fatal(err)
		}
	}
	response, err := stream.Recv()
	if _, ok := response.(resync.Finished); !ok {
		t.Fatalf("got %#v, %v", response, err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Fatalf("the end is %v", err)
	}
	if (<-got).GetDigestCredit().GetBytes() != 7 || len((<-got).GetRefine().GetBlocks()) != 2 {
		t.Error("credit or refine is not what was sent")
	}
	frame, proofs, finish := (<-got).GetFrame(), (<-got).GetProofs(), (<-got).GetFinish()
	if frame.GetSequence() != 1 || frame.GetCodec() != vmreplicav1.Codec_CODEC_NONE || len(frame.GetPayload()) != len(payload) {
		t.Error("the frame is not what was sent")
	}
	if runs := proofs.GetRuns(); len(runs) != 2 || len(runs[0].GetHashes()) != 64 || len(runs[1].GetHashes()) != 0 {
		t.Errorf("proofs %v", proofs)
	}
	if finish.GetRoot()[0] != 1 {
		t.Error("the root is not what was sent")
	}
	if sent, received := stream.WireBytes(); sent < 100_000 || sent > 110_000 || received < 64 || received > 1_000 {
		t.Errorf("%d bytes sent and %d received", sent, received)
	}
}

func TestMessagesOutOfRangeAreRefused(t *testing.T) {
	digests := func(kind vmreplicav1.DigestRun_Kind, first, count int64, packed int) *vmreplicav1.TransferResponse {
		return &vmreplicav1.TransferResponse{Message: &vmreplicav1.TransferResponse_Digests{Digests: &vmreplicav1.Digests{
			Runs: []*vmreplicav1.DigestRun{{Kind: kind, FirstBlock: first, Count: count, Digests: make([]byte, packed)}},
		}}}
	}
	const list, hole = vmreplicav1.DigestRun_KIND_DIGESTS, vmreplicav1.DigestRun_KIND_HOLE
	cases := map[string]*vmreplicav1.TransferResponse{
		"a run of an unknown kind":    digests(9, 0, 1, 0),
		"a run before the disk":       digests(hole, -1, 1, 0),
		"a run of nothing":            digests(hole, 0, 0, 0),
		"a run of minus one":          digests(hole, 0, -1, 0),
		"a run past every disk":       digests(hole, 1<<30, 1, 0),
		"a run that overflows":        digests(hole, 1, 1<<63-1, 0),
		"fewer digests than blocks":   digests(list, 0, 2, 8),
		"digests cut in the middle":   digests(list, 0, 1, 7),
		"a hole with digests":         digests(hole, 0, 1, 8),
		"no message":                  {},
		"the opening twice":           opened(),
		"refinements without digests": {Message: &vmreplicav1.TransferResponse_Refinements{Refinements: &vmreplicav1.Refinements{Blocks: []int64{1}}}},
		"a mismatch without leaves":   {Message: &vmreplicav1.TransferResponse_Mismatch{Mismatch: &vmreplicav1.SegmentMismatch{Segment: 1}}},
		"durable before proven": {Message: &vmreplicav1.TransferResponse_Acknowledgement{
			Acknowledgement: &vmreplicav1.TransferAcknowledgement{ProvenSegment: 1, DurableSegment: 2}}},
		"a root cut short": {Message: &vmreplicav1.TransferResponse_Finished{Finished: &vmreplicav1.TransferFinished{Root: make([]byte, 31)}}},
	}
	for name, message := range cases {
		t.Run(name, func(t *testing.T) {
			served := &replica{stream: func(stream serverStream) error {
				return errors.Join(stream.Send(opened()), stream.Send(message))
			}}
			stream, err := openStream(t, newPair(t, "replica", served).link(t))
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Close()
			response, err := stream.Recv()
			if found := failure.Find(err); found.Reason != failure.ReasonProtocol || found.Disk != "root" {
				t.Fatalf("got %#v, %v", response, err)
			}
		})
	}
}

func TestSendAnswersWhyTheReplicaEndedTheStream(t *testing.T) {
	served := &replica{stream: func(stream serverStream) error {
		if err := stream.Send(opened()); err != nil {
			return err
		}
		return failure.New(failure.Precondition, failure.ReasonStaleTerm, "the term is behind")
	}}
	stream, err := openStream(t, newPair(t, "replica", served).link(t))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	received := make(chan error)
	go func() {
		_, err := stream.Recv()
		received <- err
	}()
	for err == nil {
		err = stream.Send(resync.DigestCredit{Bytes: 1})
	}
	if failure.Find(err).Reason != failure.ReasonStaleTerm || failure.Find(<-received).Reason != failure.ReasonStaleTerm {
		t.Fatalf("sending answers %v", err)
	}
}

func TestAStreamThatMovesNothingIsEnded(t *testing.T) {
	served := &replica{stream: func(stream serverStream) error {
		if err := stream.Send(opened()); err != nil {
			return err
		}
		<-stream.Context().Done()
		return nil
	}}
	pair := newPair(t, "replica", served)
	pair.config.ProgressTimeout = 500 * time.Millisecond
	stream, err := openStream(t, pair.link(t))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	_, err = stream.Recv()
	if failure.Find(err).Reason != failure.ReasonNoProgress || !failure.Retryable(err) {
		t.Fatalf("got %v", err)
	}
}

func TestSlowPacingIsProgress(t *testing.T) {
	served := &replica{stream: func(stream serverStream) error {
		if err := stream.Send(opened()); err != nil {
			return err
		}
		for {
			if _, err := stream.Recv(); err != nil {
				return nil
			}
		}
	}}
	pair := newPair(t, "replica", served)
	pair.config.ProgressTimeout = 150 * time.Millisecond
	pair.config.Pacer = transport.NewPacer(512 << 10)
	stream, err := openStream(t, pair.link(t))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	began := time.Now()
	frame := resync.Frame{Sequence: 1, Frame: blockdiff.Frame{Codec: blockdiff.CodecNone, Payload: make([]byte, 256<<10)}}
	if err := stream.Send(frame); err != nil {
		t.Fatalf("a slow limit is taken for a standstill: %v", err)
	}
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Fatalf("256 KiB at 512 KiB/s took %v", took)
	}
}
