package peer_test

import (
	"errors"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"

	"vmreplica/agent-primary/relationship"
	"vmreplica/agent-primary/resync"
	"vmreplica/agent-primary/ship"
	"vmreplica/blockdiff"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

type serverShipment = grpc.BidiStreamingServer[vmreplicav1.ShipRequest, vmreplicav1.ShipResponse]

func openShipment(t *testing.T, link relationship.Replica, open ship.Open) (ship.Stream, ship.Opened, error) {
	t.Helper()
	return link.Transfers(blockdiff.BLAKE3).Ship(t.Context(), open)
}

func shipOpened(credit int64) *vmreplicav1.ShipResponse {
	return &vmreplicav1.ShipResponse{Message: &vmreplicav1.ShipResponse_Opened{
		Opened: &vmreplicav1.ShipOpened{FrameCreditBytes: credit},
	}}
}

func TestAShipmentCarriesEveryMessage(t *testing.T) {
	got := make(chan *vmreplicav1.ShipRequest, 8)
	served := &replica{shipment: func(stream serverShipment) error {
		for i := range 3 {
			request, err := stream.Recv()
			if err != nil {
				return err
			}
			got <- request
			if i == 0 {
				if err := stream.Send(shipOpened(7)); err != nil {
					return err
				}
			}
		}
		acknowledgement := &vmreplicav1.ShipAcknowledgement{FrameSequence: 1}
		root := make([]byte, 32)
		root[5] = 6
		return errors.Join(
			stream.Send(&vmreplicav1.ShipResponse{Message: &vmreplicav1.ShipResponse_Acknowledgement{Acknowledgement: acknowledgement}}),
			stream.Send(&vmreplicav1.ShipResponse{Message: &vmreplicav1.ShipResponse_Finished{Finished: &vmreplicav1.ShipFinished{Root: root}}}),
		)
	}}
	open := ship.Open{Transfer: replication.NewID(), Disk: "root", Session: 3, Shipment: replication.NewID()}
	stream, opened, err := openShipment(t, newPair(t, "replica", served).link(t), open)
	if err != nil || opened.FrameCreditBytes != 7 {
		t.Fatalf("%+v, %v", opened, err)
	}
	defer stream.Close()
	frame := blockdiff.Frame{Codec: blockdiff.CodecNone, Extents: []byte{0, 5}, Payload: make([]byte, 100_000), PlaintextBytes: 9, PlaintextDigest: 8}
	err = errors.Join(stream.Send(resync.Frame{Sequence: 1, Frame: frame}),
		stream.Send(ship.Finish{Root: blockdiff.Hash{1}, Frames: 1, CoveredBytes: 4096}))
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if acknowledged, is := first.(ship.Acknowledgement); err != nil || !is || acknowledged.FrameSequence != 1 {
		t.Fatalf("got %#v, %v", first, err)
	}
	second, err := stream.Recv()
	if finished, is := second.(ship.Finished); err != nil || !is || finished.Root[5] != 6 {
		t.Fatalf("got %#v, %v", second, err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Fatalf("the end is %v", err)
	}
	asked, sent, finish := (<-got).GetOpen(), (<-got).GetFrame(), (<-got).GetFinish()
	if asked.GetTransfer() != string(open.Transfer) || asked.GetDisk() != "root" || asked.GetSession() != 3 ||
		asked.GetShipment() != string(open.Shipment) || asked.GetRelationship().GetTerm() != 1 {
		t.Errorf("opened with %v", asked)
	}
	if sent.GetSequence() != 1 || sent.GetPlaintextBytes() != 9 || sent.GetPlaintextDigest() != 8 || len(sent.GetPayload()) != 100_000 {
		t.Error("the frame is not what was sent")
	}
	if finish.GetRoot()[0] != 1 || finish.GetFrames() != 1 || finish.GetCoveredBytes() != 4096 {
		t.Errorf("finished with %v", finish)
	}
	if wire, _ := stream.WireBytes(); wire < 100_000 || wire > 110_000 {
		t.Errorf("%d bytes sent", wire)
	}
}

func TestAnswersToAShipmentOutOfRangeAreRefused(t *testing.T) {
	cases := map[string][]*vmreplicav1.ShipResponse{
		"no credit":       {shipOpened(0)},
		"endless credit":  {shipOpened(1 << 40)},
		"no opening":      {{Message: &vmreplicav1.ShipResponse_Acknowledgement{}}},
		"the end at once": {},
		"no message":      {shipOpened(1), {}},
		"opening twice":   {shipOpened(1), shipOpened(1)},
		"a root cut short": {shipOpened(1), {Message: &vmreplicav1.ShipResponse_Finished{
			Finished: &vmreplicav1.ShipFinished{Root: make([]byte, 31)}}}},
	}
	for name, messages := range cases {
		t.Run(name, func(t *testing.T) {
			served := &replica{shipment: func(stream serverShipment) error {
				for _, message := range messages {
					if err := stream.Send(message); err != nil {
						return err
					}
				}
				return nil
			}}
			stream, _, err := openShipment(t, newPair(t, "replica", served).link(t), ship.Open{Disk: "root", Session: 1})
			if err == nil {
				defer stream.Close()
				_, err = stream.Recv()
			}
			if found := failure.Find(err); found.Reason != failure.ReasonProtocol || found.Disk != "root" || found.VM != "web01" {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestAShipmentSaysWhyTheReplicaEndedIt(t *testing.T) {
	served := &replica{shipment: func(stream serverShipment) error {
		if err := stream.Send(shipOpened(1)); err != nil {
			return err
		}
		return failure.New(failure.Corrupt, failure.ReasonProofFailed, "another root")
	}}
	stream, _, err := openShipment(t, newPair(t, "replica", served).link(t), ship.Open{Disk: "root", Session: 1})
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
		err = stream.Send(ship.Finish{})
	}
	if failure.Find(err).Reason != failure.ReasonProofFailed || failure.Find(<-received).Reason != failure.ReasonProofFailed {
		t.Fatalf("sending answers %v", err)
	}
}

func TestAShipmentThatMovesNothingIsEnded(t *testing.T) {
	served := &replica{shipment: func(stream serverShipment) error {
		if err := stream.Send(shipOpened(1)); err != nil {
			return err
		}
		<-stream.Context().Done()
		return nil
	}}
	pair := newPair(t, "replica", served)
	pair.config.ProgressTimeout = 50 * time.Millisecond
	stream, _, err := openShipment(t, pair.link(t), ship.Open{Disk: "root", Session: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if _, err := stream.Recv(); failure.Find(err).Reason != failure.ReasonNoProgress || !failure.Retryable(err) {
		t.Fatalf("got %v", err)
	}
}

func TestWhatADeltaNeedsIsOnTheWire(t *testing.T) {
	lineage, cut, cutTime := replication.NewID(), replication.NewID(), time.Unix(1_700_000_000, 5).UTC()
	served := &replica{
		reconcile: &vmreplicav1.ReconcileResponse{},
		begin:     &vmreplicav1.BeginTransferResponse{Cursors: []*vmreplicav1.TransferCursor{{Disk: "root", Chain: make([]byte, 32), Session: 4}}},
		commit:    &vmreplicav1.CommitTransferResponse{Lineage: string(lineage), Cut: string(cut)},
	}
	link := newPair(t, "replica", served).link(t)
	if _, err := link.Reconcile(t.Context(), 5); err != nil || served.asked.Load().GetRecoveryPoints() != 5 {
		t.Errorf("%v: asked with %v", err, served.asked.Load())
	}
	transfers := link.Transfers(blockdiff.BLAKE3)
	cursors, err := transfers.Begin(t.Context(), resync.Begin{
		Transfer: replication.NewID(), Kind: replication.KindDelta, Disks: []resync.BeginDisk{{ID: "root", SizeBytes: 512}},
		Lineage: lineage, Cut: cut, RecoveryPoints: 24, MarksOnly: []string{"root"},
	})
	begun := served.begun.Load()
	if err != nil || len(cursors) != 1 || cursors[0].Session != 4 || begun.GetKind() != vmreplicav1.TransferKind_TRANSFER_KIND_DELTA ||
		begun.GetRecoveryPoints() != 24 || len(begun.GetMarksOnlyDisks()) != 1 || begun.GetCut() != string(cut) {
		t.Errorf("%v: %v begun with %v", err, cursors, begun)
	}
	_, err = transfers.Commit(t.Context(), resync.Commit{
		Transfer: replication.NewID(), Lineage: lineage, Cut: cut, CutTime: cutTime, Roots: []resync.DiskRoot{
			{Disk: "root", Root: blockdiff.Hash{1}, Shipment: cut, ShipmentRoot: blockdiff.Hash{2}}, {Disk: "data", Root: blockdiff.Hash{3}},
		},
	})
	committed := served.committed.Load()
	if err != nil || !committed.GetCutTime().AsTime().Equal(cutTime) || len(committed.GetDisks()) != 2 {
		t.Fatalf("%v: committed %v", err, committed)
	}
	if shipped := committed.GetDisks()[0]; shipped.GetShipment() != string(cut) || shipped.GetShipmentRoot()[0] != 2 || shipped.GetRoot()[0] != 1 {
		t.Errorf("committed %v", shipped)
	}
	if cold := committed.GetDisks()[1]; cold.GetShipment() != "" || len(cold.GetShipmentRoot()) != 0 {
		t.Errorf("committed %v", cold)
	}
}
