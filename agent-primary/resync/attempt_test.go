package resync_test

import (
	"context"
	"io"
	"iter"
	"slices"
	"testing"

	"vmreplica/agent-primary/resync"
	"vmreplica/agent-primary/tracking"
	"vmreplica/blockdiff"
	"vmreplica/internal/disk"
	"vmreplica/internal/replication"
)

const size = 16 << 20

// empty is a disk of one segment without content.
type empty struct{ tracking.Source }

func (empty) Size() int64                   { return size }
func (empty) LogicalSectorSize() int        { return 512 }
func (empty) Continuous(tracking.Cut) error { return nil }
func (empty) Extents(off, n int64) iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		yield(disk.Extent{Offset: off, Length: n, Kind: disk.Unmapped}, nil)
	}
}

// peer is a replica that holds nothing either.
type peer struct {
	resync.Peer
	prover *blockdiff.Prover
	start  blockdiff.Hash
	begun  resync.Begin
	opened []resync.Open
}

func (p *peer) Begin(_ context.Context, begin resync.Begin) ([]resync.Cursor, error) {
	p.begun = begin
	cursors := make([]resync.Cursor, len(begin.Disks))
	for i := range cursors {
		cursors[i].Session = uint64(10 + i)
	}
	return cursors, nil
}

func (p *peer) Open(_ context.Context, open resync.Open) (resync.Stream, resync.Opened, error) {
	p.opened = append(p.opened, open)
	s := &stream{peer: p, answers: make(chan resync.Response, 4)}
	s.answers <- resync.Digests{Runs: []blockdiff.Run{{Kind: blockdiff.RunHole, Count: size / blockdiff.BlockSize}}}
	return s, resync.Opened{Cursor: resync.Cursor{Chain: p.start}, RefineCreditBlocks: 1, FrameCreditBytes: 1}, nil
}

type stream struct {
	*peer
	answers chan resync.Response
}

func (s *stream) Send(request resync.Request) error {
	switch request := request.(type) {
	case resync.Proofs:
		s.answers <- resync.Acknowledgement{ProvenSegment: 1, DurableSegment: 1}
	case resync.Finish:
		s.answers <- resync.Finished(request)
		close(s.answers)
	}
	return nil
}

func (s *stream) Recv() (resync.Response, error) {
	if answer, open := <-s.answers; open {
		return answer, nil
	}
	return nil, io.EOF
}

func (s *stream) Close()                            {}
func (s *stream) WireBytes() (sent, received int64) { return 0, 0 }

func TestNoPassGoesOverADiskWhoseMarksAreExact(t *testing.T) {
	prover, err := blockdiff.NewProver(blockdiff.BLAKE3)
	if err != nil {
		t.Fatal(err)
	}
	geometry, err := blockdiff.NewGeometry(size)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{prover: prover, start: prover.Start(geometry)}
	outcome, err := resync.Attempt(t.Context(), p, resync.Options{
		Transfer: replication.NewID(), Kind: replication.KindResync, Proof: blockdiff.BLAKE3, Limits: resync.DefaultLimits(),
		Budget: resync.NewBudget(1), RecoveryPoints: 7, Disks: []resync.Disk{
			{ID: "marked", Source: empty{}, MarksOnly: true, Progress: new(resync.Progress)},
			{ID: "compared", Source: empty{}, Progress: new(resync.Progress)},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.begun.MarksOnly, []string{"marked"}) || len(p.begun.Disks) != 2 || p.begun.RecoveryPoints != 7 {
		t.Errorf("begun with %+v", p.begun)
	}
	if len(p.opened) != 1 || p.opened[0].Disk != "compared" || p.opened[0].Session != 12 {
		t.Errorf("opened %+v", p.opened)
	}
	marked, compared := outcome.Disks[0], outcome.Disks[1]
	if marked.ID != "marked" || marked.Session != 10 || !marked.Root.IsZero() {
		t.Errorf("%+v", marked)
	}
	if compared.Session != 12 || compared.Root != prover.ExtendZero(geometry, p.start, 0, 1) {
		t.Errorf("%+v", compared)
	}
	if !outcome.Equal() {
		t.Error("the disk that was compared is equal, and the other one says nothing")
	}
	outcome.Disks[1].ReplicaRoot = blockdiff.Hash{1}
	if outcome.Equal() {
		t.Error("the disk that was compared differs")
	}
}
