package receive_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"syscall"
	"testing"
	"time"

	"vmreplica/agent-replica/chain"
	"vmreplica/blockdiff"
	"vmreplica/internal/api"
	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/failure"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// shipper is a primary's end of one shipment, which may do what a primary must not.
type shipper struct {
	t        *testing.T
	stream   vmreplicav1.TransferService_ShipClient
	geometry blockdiff.Geometry
	prover   *blockdiff.Prover
	root     blockdiff.Hash
	sequence uint64
	covered  int64
	model    []byte
}

// ship opens a shipment; what it sends is written to model, too.
func (w *world) ship(session uint64, shipment string, model []byte) *shipper {
	w.t.Helper()
	geometry, err := blockdiff.NewGeometry(size)
	must(w.t, err)
	prover, err := blockdiff.NewProver(blockdiff.BLAKE3)
	must(w.t, err)
	stream, err := w.client.Ship(w.t.Context())
	must(w.t, err)
	s := &shipper{t: w.t, stream: stream, geometry: geometry, prover: prover, root: prover.StartShipment(geometry), model: model}
	open := &vmreplicav1.ShipOpen{Relationship: w.relationship(), Transfer: string(id("a")), Disk: diskID, Session: session,
		Shipment: string(id(shipment))}
	must(w.t, stream.Send(&vmreplicav1.ShipRequest{Message: &vmreplicav1.ShipRequest_Open{Open: open}}))
	return s
}

// opened waits for the replica's answer.
func (s *shipper) opened() *shipper {
	s.t.Helper()
	answer, err := s.stream.Recv()
	must(s.t, api.FromStatus(err))
	if answer.GetOpened().GetFrameCreditBytes() != 1<<20 {
		s.t.Fatalf("opened with %v", answer)
	}
	return s
}

// frame is one of data, zeros and no space at all, from a block on.
func (s *shipper) frame(block int64, fill byte) *vmreplicav1.Frame {
	s.t.Helper()
	builder := blockdiff.NewBuilder(s.geometry, 1<<20)
	data := bytes.Repeat([]byte{fill}, 8192)
	at := block * 4096
	must(s.t, errors.Join(builder.AddData(at, data), builder.AddZero(at+8192, 4096), builder.AddUnmapped(at+12288, 4096)))
	if s.model != nil {
		copy(s.model[at:], data)
		clear(s.model[at+8192 : at+16384])
	}
	plain := builder.Take()
	coded, err := blockdiff.NewEncoder().Encode(s.geometry, plain)
	must(s.t, err)
	hash := s.prover.NewFrameHash(coded.Extents)
	hash.Add(plain.Data)
	s.root = s.prover.Extend(s.root, hash.Sum())
	s.sequence++
	s.covered += 16384
	return &vmreplicav1.Frame{Sequence: s.sequence, Extents: coded.Extents, Codec: vmreplicav1.Codec(coded.Codec),
		PlaintextBytes: coded.PlaintextBytes, PlaintextDigest: coded.PlaintextDigest, Payload: coded.Payload}
}

func (s *shipper) send(frame *vmreplicav1.Frame) *shipper {
	s.t.Helper()
	err := s.stream.Send(&vmreplicav1.ShipRequest{Message: &vmreplicav1.ShipRequest_Frame{Frame: frame}})
	if err != nil && !errors.Is(err, io.EOF) {
		s.t.Fatal(err)
	}
	return s
}

// acknowledged waits until everything that was sent is written.
func (s *shipper) acknowledged() *shipper {
	s.t.Helper()
	for {
		answer, err := s.stream.Recv()
		must(s.t, api.FromStatus(err))
		if answer.GetAcknowledgement().GetFrameSequence() == s.sequence {
			return s
		}
	}
}

// finish says that this was all, changed where it must not be.
func (s *shipper) finish(change func(*vmreplicav1.ShipFinish)) *shipper {
	s.t.Helper()
	finish := &vmreplicav1.ShipFinish{Root: bytes.Clone(s.root[:]), Frames: s.sequence, CoveredBytes: s.covered}
	if change != nil {
		change(finish)
	}
	must(s.t, s.stream.Send(&vmreplicav1.ShipRequest{Message: &vmreplicav1.ShipRequest_Finish{Finish: finish}}))
	return s
}

// end is how the stream ends, and whether it finished.
func (s *shipper) end() (finished bool, err error) {
	s.t.Helper()
	for {
		answer, err := s.stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return finished, nil
		case err != nil:
			return finished, api.FromStatus(err)
		case answer.GetFinished() != nil:
			finished = bytes.Equal(answer.GetFinished().GetRoot(), s.root[:])
		}
	}
}

const delta = vmreplicav1.TransferKind_TRANSFER_KIND_DELTA

func TestADelta(t *testing.T) {
	w := newWorld(t, true)
	must(t, w.begin(delta))
	want := old()
	round := w.ship(1, "4", want).opened()
	round.send(round.frame(3, 'a')).finish(nil)
	if finished, err := round.end(); !finished || err != nil {
		t.Fatalf("the round finished %v, %v", finished, err)
	}
	cut := w.ship(2, "5", want).opened()
	for i := range int64(40) {
		cut.send(cut.frame(i*6, byte(i))).acknowledged()
	}
	cut.finish(nil)
	if finished, err := cut.end(); !finished || err != nil {
		t.Fatalf("the cut finished %v, %v", finished, err)
	}
	if !bytes.Equal(w.view(), old()) {
		t.Error("what is received shows before the commit")
	}
	at := time.Now().Add(-time.Minute)
	if err := w.commit(nil, round.root); reasonOf(err) != failure.ReasonProofFailed {
		t.Errorf("a commit with another root: %v", err)
	}
	must(t, w.commit(nil, cut.root))
	must(t, w.commit(nil, cut.root))
	record := w.record()
	if want := cut.prover.Extend(blockdiff.Hash{9}, cut.root); record.Disks[0].Root != want || record.Cut != id("5") ||
		record.RecoveryPoints != 3 || record.ProvenTime.Before(at) {
		t.Errorf("committed %+v", record)
	}
	if !bytes.Equal(w.view(), want) {
		t.Error("the replica does not hold what was shipped")
	}
}

// TestAnEmptyShipmentCounts: every disk has the cut, and a disk that nothing was written to commits no layer.
func TestAnEmptyShipmentCounts(t *testing.T) {
	w := newWorld(t, true)
	must(t, w.begin(delta))
	cut := w.ship(1, "5", nil).opened().finish(nil)
	if finished, err := cut.end(); !finished || err != nil {
		t.Fatalf("finished %v, %v", finished, err)
	}
	must(t, w.commit(nil, cut.root))
	if record := w.record(); len(record.Disks[0].Layers) != 0 || record.Cut != id("5") {
		t.Errorf("layers %v, cut %s", record.Disks[0].Layers, record.Cut)
	}
}

// TestWhatAPrimaryMustNotSend: each ends the stream, and what it had shipped does not commit.
func TestWhatAPrimaryMustNotSend(t *testing.T) {
	protocol, proof := failure.ReasonProtocol, failure.ReasonProofFailed
	finish := func(change func(*vmreplicav1.ShipFinish)) func(*shipper) {
		return func(s *shipper) { s.finish(change) }
	}
	for name, c := range map[string]struct {
		send   func(*shipper)
		reason string
	}{
		"another root": {finish(func(f *vmreplicav1.ShipFinish) { f.Root[0]++ }), proof},
		"a short root": {finish(func(f *vmreplicav1.ShipFinish) { f.Root = f.Root[1:] }), protocol},
		"more frames":  {finish(func(f *vmreplicav1.ShipFinish) { f.Frames++ }), proof},
		"fewer bytes":  {finish(func(f *vmreplicav1.ShipFinish) { f.CoveredBytes-- }), proof},
		"a lost frame": {func(s *shipper) { s.frame(9, 'x'); s.finish(nil) }, proof},
		"a frame out of order": {func(s *shipper) {
			first, second := s.frame(9, 'x'), s.frame(19, 'y')
			s.send(second).send(first)
		}, protocol},
		"a frame twice": {func(s *shipper) { f := s.frame(9, 'x'); s.send(f).send(f) }, protocol},
		"a changed payload": {func(s *shipper) {
			f := s.frame(9, 'x')
			f.PlaintextDigest++
			s.send(f)
		}, protocol},
		"an extent beyond the disk": {func(s *shipper) {
			f := s.frame(9, 'x')
			f.Extents = []byte{0x80, 0x80, 0x80, 0x08, 1<<2 | 2}
			s.send(f)
		}, protocol},
		"a frame that is too large": {func(s *shipper) {
			f := s.frame(9, 'x')
			f.Payload = make([]byte, f.PlaintextBytes+1)
			s.send(f)
		}, protocol},
		"the end without a finish": {func(s *shipper) { must(s.t, s.stream.CloseSend()) }, protocol},
		"nothing":                  {func(s *shipper) { must(s.t, s.stream.Send(&vmreplicav1.ShipRequest{})) }, protocol},
		"a second open": {func(s *shipper) {
			must(s.t, s.stream.Send(&vmreplicav1.ShipRequest{Message: &vmreplicav1.ShipRequest_Open{Open: &vmreplicav1.ShipOpen{}}}))
		}, protocol},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, true)
			must(t, w.begin(delta))
			s := w.ship(1, "5", nil).opened()
			s.send(s.frame(1, 'a')).acknowledged()
			c.send(s)
			if finished, err := s.end(); finished || reasonOf(err) != c.reason {
				t.Errorf("finished %v, %v", finished, err)
			}
			if err := w.commit(nil, s.root); reasonOf(err) != failure.ReasonWrongState {
				t.Errorf("the commit: %v", err)
			}
			if !bytes.Equal(w.view(), old()) {
				t.Error("the replica changed")
			}
		})
	}
}

// A shipment does not begin where it is not wanted.
func TestWhatIsNotOpened(t *testing.T) {
	state := failure.ReasonWrongState
	for name, c := range map[string]struct {
		kind    vmreplicav1.TransferKind
		change  func(*vmreplicav1.ShipOpen)
		reason  string
		without bool
	}{
		"without a transfer":  {0, nil, state, true},
		"another transfer":    {delta, func(o *vmreplicav1.ShipOpen) { o.Transfer = string(id("b")) }, state, false},
		"another disk":        {delta, func(o *vmreplicav1.ShipOpen) { o.Disk = "data" }, failure.ReasonNotFound, false},
		"no id":               {delta, func(o *vmreplicav1.ShipOpen) { o.Shipment = "" }, failure.ReasonInvalidArgument, false},
		"an old session":      {delta, func(o *vmreplicav1.ShipOpen) { o.Session = 0 }, failure.ReasonStaleSession, false},
		"a lower term":        {delta, func(o *vmreplicav1.ShipOpen) { o.Relationship.Term = 0 }, failure.ReasonStaleTerm, false},
		"before the proof":    {vmreplicav1.TransferKind_TRANSFER_KIND_RESYNC, nil, state, false},
		"into a verification": {vmreplicav1.TransferKind_TRANSFER_KIND_VERIFY, nil, state, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, true)
			if !c.without {
				must(t, w.begin(c.kind))
			}
			stream, err := w.client.Ship(t.Context())
			must(t, err)
			open := &vmreplicav1.ShipOpen{Relationship: w.relationship(), Transfer: string(id("a")), Disk: diskID, Session: 1,
				Shipment: string(id("5"))}
			if c.change != nil {
				c.change(open)
			}
			must(t, stream.Send(&vmreplicav1.ShipRequest{Message: &vmreplicav1.ShipRequest_Open{Open: open}}))
			if _, err := stream.Recv(); reasonOf(err) != c.reason {
				t.Errorf("answered %v", err)
			}
		})
	}
}

// No pass goes over a delta's disk.
func TestAPassOverMarksIsRefused(t *testing.T) {
	w := newWorld(t, true)
	must(t, w.begin(delta))
	stream, err := w.client.Transfer(t.Context())
	must(t, err)
	open := &vmreplicav1.TransferOpen{Relationship: w.relationship(), Transfer: string(id("a")), Disk: diskID, Session: 1}
	must(t, stream.Send(&vmreplicav1.TransferRequest{Message: &vmreplicav1.TransferRequest_Open{Open: open}}))
	if _, err := stream.Recv(); reasonOf(err) != failure.ReasonWrongState {
		t.Errorf("answered %v", err)
	}
}

// A later session ends an earlier one, whose frames count for nothing, and so does a raised term.
func TestWhatEndsAShipment(t *testing.T) {
	for name, c := range map[string]struct {
		end    func(*world)
		reason string
	}{
		"a later session": {func(w *world) { w.ship(2, "6", nil).opened() }, failure.ReasonStaleSession},
		"a raised term": {func(w *world) {
			w.update(func(r *chain.Record) error { return r.RaiseTerm(2) })
			w.receiver.Supersede(vmName, 2)
		}, failure.ReasonStaleTerm},
		"a term raised unseen": {func(w *world) { w.update(func(r *chain.Record) error { return r.RaiseTerm(2) }) },
			failure.ReasonStaleSession},
		"an abort": {func(w *world) {
			_, err := w.client.AbortTransfer(w.t.Context(), &vmreplicav1.AbortTransferRequest{
				Relationship: w.relationship(), Transfer: string(id("a"))})
			must(w.t, err)
			if record := w.record(); record.Transfer != nil || len(record.Garbage)+len(record.Files()) != 1 {
				w.t.Errorf("left %v and %v", record.Files(), record.Garbage)
			}
		}, failure.ReasonStaleSession},
		"a shutdown": {func(w *world) { w.receiver.Close() }, failure.ReasonWrongState},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, true)
			must(t, w.begin(delta))
			s := w.ship(1, "5", nil).opened()
			s.send(s.frame(1, 'a')).acknowledged()
			c.end(w)
			if err := s.stream.Send(&vmreplicav1.ShipRequest{Message: &vmreplicav1.ShipRequest_Finish{
				Finish: &vmreplicav1.ShipFinish{Root: s.root[:], Frames: s.sequence, CoveredBytes: s.covered},
			}}); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			if finished, err := s.end(); finished || reasonOf(err) != c.reason {
				t.Errorf("finished %v, %v", finished, err)
			}
			if t := w.record().Transfer; t != nil && !t.Disks[0].Shipment.Root.IsZero() {
				w.t.Error("the record has the shipment")
			}
		})
	}
}

// A primary that reads nothing holds up its own stream and nobody else: a later one takes over.
func TestAPrimaryThatReadsNothing(t *testing.T) {
	w := newWorld(t, true)
	must(t, w.begin(delta))
	deaf := w.ship(1, "4", nil).opened()
	for i := range int64(60) {
		deaf.send(deaf.frame(i*4, 'a'))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.ship(2, "5", nil).opened()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		t.Fatal("the later shipment waits for the deaf one")
	}
}

// The last shipment of a first copy goes into the base itself.
func TestAFirstCopyIsCaughtUp(t *testing.T) {
	w := newWorld(t, false)
	must(t, w.begin(vmreplicav1.TransferKind_TRANSFER_KIND_INITIAL))
	root := blockdiff.Hash{3}
	w.update(func(r *chain.Record) error {
		return errors.Join(r.TakeSession(id("a"), diskID, 1), r.SaveCursor(id("a"), diskID, 1, 1, blockdiff.Hash{2}),
			r.ProveDisk(id("a"), diskID, 1, root))
	})
	want := make([]byte, size)
	s := w.ship(2, "5", want).opened()
	s.send(s.frame(1, 'a')).acknowledged()
	time.Sleep(20 * time.Millisecond) // it is kept meanwhile
	s.send(s.frame(80, 'b')).finish(nil)
	if finished, err := s.end(); !finished || err != nil {
		t.Fatalf("finished %v, %v", finished, err)
	}
	must(t, w.commit(func(c *vmreplicav1.CommitTransferRequest) {
		c.Lineage, c.Disks[0].Root = string(id("6")), root[:]
	}, s.root))
	if record := w.record(); record.Incomplete() || record.Disks[0].Root != s.prover.Extend(root, s.root) {
		t.Errorf("committed %+v", record.Disks[0])
	}
	if !bytes.Equal(w.view(), want) {
		t.Error("the base does not hold what was shipped")
	}
}

// broken are layers whose flush fails.
type broken struct {
	chain.Storage
	err error
}

type brokenLayer struct {
	disk.Layer
	err error
}

func (l brokenLayer) Flush() error { return l.err }

func (b broken) CreateLayer(l chain.Layer, size int64, sectorSize int) (disk.Layer, error) {
	layer, err := b.Storage.CreateLayer(l, size, sectorSize)
	return brokenLayer{layer, b.err}, err
}

// A failed sync ends the transfer for good; a storage that is full does not.
func TestAFlushThatFailsDuringAShipment(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		reason string
		failed bool
	}{
		"a sync":         {errors.Join(durable.ErrSync, syscall.EIO), failure.ReasonStorageFailed, true},
		"for want of it": {syscall.ENOSPC, failure.ReasonStorageFull, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := prepared(on(t, durabletest.New(), func(s chain.Storage) chain.Storage { return broken{s, c.err} }), true)
			must(t, w.begin(delta))
			s := w.ship(1, "5", nil).opened()
			s.send(s.frame(1, 'a'))
			_ = s.stream.Send(&vmreplicav1.ShipRequest{Message: &vmreplicav1.ShipRequest_Finish{
				Finish: &vmreplicav1.ShipFinish{Root: s.root[:], Frames: s.sequence, CoveredBytes: s.covered},
			}})
			if finished, err := s.end(); finished || reasonOf(err) != c.reason {
				t.Errorf("finished %v, %v", finished, err)
			}
			record := w.record()
			if failed := record.Transfer.Failed != ""; failed != c.failed || !record.Transfer.Disks[0].Shipment.Root.IsZero() {
				t.Errorf("the transfer is %+v", record.Transfer)
			}
		})
	}
}
