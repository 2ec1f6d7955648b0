package pair_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"vmreplica/agent-primary/resync"
	"vmreplica/agent-replica/receive"
	"vmreplica/blockdiff"
	"vmreplica/internal/collide"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// equal compares the replica's base with the primary's image.
func (w *world) equal() {
	w.t.Helper()
	want, err := os.ReadFile(w.image)
	must(w.t, err)
	got, err := os.ReadFile(w.base)
	must(w.t, err)
	if !bytes.Equal(got, want) {
		for i := range want {
			if i >= len(got) || got[i] != want[i] {
				w.t.Fatalf("replica and primary differ at byte %d of %d", i, len(want))
			}
		}
	}
}

func random(seed uint64, n int) []byte {
	source := rand.New(rand.NewPCG(seed, 1))
	content := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		v := source.Uint64()
		for k := range 8 {
			content[i+k] = byte(v >> (8 * k))
		}
	}
	return content
}

// scattered changes about one 4 KiB block in n, some to zeros, and some ranges of a megabyte to zeros.
func scattered(content []byte, seed uint64, n int) []byte {
	source := rand.New(rand.NewPCG(seed, 2))
	changed := bytes.Clone(content)
	for off := 0; off+4096 <= len(changed); off += 4096 {
		switch source.IntN(n) {
		case 0:
			copy(changed[off:off+4096], random(source.Uint64(), 4096))
		case 1:
			clear(changed[off : off+4096])
		}
		if source.IntN(2000) == 0 {
			clear(changed[off:min(off+1<<20, len(changed))])
		}
	}
	return changed
}

const mib = 1 << 20

func TestTransfer(t *testing.T) {
	one := func(r *receive.Limits, p *resync.Limits) {
		r.RefineCreditBlocks, r.FrameCreditBytes, r.OpenSegments = 1, 1, 1
		p.DigestCreditBytes, p.SegmentWindow, p.FrameBytes = 1, 1, 4096
	}
	some := func(bytes int64) func(*receive.Limits, *resync.Limits) {
		return func(_ *receive.Limits, p *resync.Limits) { p.DigestCreditBytes = bytes }
	}
	base := random(1, 50*mib+512)
	// A hole at each message's end costs little: less than what is given back at a time.
	striped := func(every int) []byte {
		content := bytes.Clone(base)
		for end := every; end < len(content); end += every {
			clear(content[end-blockdiff.BlockSize : end])
		}
		return content
	}
	cases := map[string]struct {
		primary, replica []byte
		limits           func(*receive.Limits, *resync.Limits)
	}{
		"equal":                        {base, base, nil},
		"one block in a hundred":       {scattered(base, 7, 100), base, nil},
		"every block differs":          {random(2, 20*mib), random(3, 20*mib), nil},
		"every credit at one":          {random(2, 20*mib), random(3, 20*mib), one},
		"scattered, every credit at 1": {scattered(base, 8, 50), base, one},
		"1 MiB of digests ahead":       {striped(mib), striped(mib), some(mib)},
		"4 MiB of digests ahead":       {striped(4 * mib), striped(4 * mib), some(4 * mib)},
		"8 MiB of digests ahead":       {striped(8 * mib), striped(8 * mib), some(8 * mib)},
		"the primary is zeros":         {make([]byte, 40*mib+4096), random(3, 40*mib+4096), nil},
		"the replica is zeros":         {random(3, 40*mib+4096), make([]byte, 40*mib+4096), nil},
		"both are zeros":               {make([]byte, 400*mib), make([]byte, 400*mib), nil},
		"one sector":                   {random(4, 512), random(5, 512), nil},
		"a block and a sector":         {random(4, 65536+512), random(5, 65536+512), nil},
		"a segment less a sector":      {random(4, 16*mib-512), random(5, 16*mib-512), nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.primary, c.replica, c.limits)
			outcome := w.transfer(replication.KindResync)
			if !outcome.Equal() {
				t.Fatal("the roots differ")
			}
			w.merge()
			w.equal()
			if bytes.Equal(c.primary, c.replica) && w.progress.Figures().BlocksDiffering != 0 {
				t.Fatalf("equal disks, and %d blocks differed", w.progress.Figures().BlocksDiffering)
			}
		})
		t.Run("first copy, "+name, func(t *testing.T) {
			w := newWorld(t, c.primary, nil, c.limits)
			w.transfer(replication.KindInitial)
			w.equal()
		})
	}
}

// A change of 4 KiB costs 4 KiB, and some digests.
func TestWireBytes(t *testing.T) {
	base := random(1, 64*mib)
	changed := bytes.Clone(base)
	copy(changed[30*mib+8192:], random(9, 4096))
	w := newWorld(t, changed, base, nil)
	w.transfer(replication.KindResync)
	figures := w.progress.Figures()
	if figures.BlocksDiffering != 1 || figures.BytesDiffering != 4096 {
		t.Fatalf("%d blocks and %d bytes differ", figures.BlocksDiffering, figures.BytesDiffering)
	}
	if all := figures.WireBytesSent + figures.WireBytesReceived; all > 4096+len64(base)/2000 {
		t.Fatalf("%d bytes crossed the wire for a change of 4096", all)
	}
}

func len64(b []byte) int64 { return int64(len(b)) }

// Blocks crafted to the same xxh64, whole and in each sub-block, end up equal all the same.
func TestCraftedCollision(t *testing.T) {
	theirs := random(1, 48*mib)
	ours := bytes.Clone(theirs)
	for i := range 20 {
		a, b := collide.Pair(int64(i))
		off := (i*37 + 3) % 700 * blockdiff.BlockSize
		copy(ours[off:], a)
		copy(theirs[off:], b)
	}
	w := newWorld(t, ours, theirs, nil)
	w.transfer(replication.KindResync)
	if w.progress.Figures().SegmentsResent == 0 {
		t.Fatal("no proof failed: the blocks did not collide, and the test shows nothing")
	}
	w.merge()
	w.equal()
}

func TestVerify(t *testing.T) {
	base := random(1, 40*mib)
	changed := bytes.Clone(base)
	copy(changed[5*mib:], random(2, 70000))
	a, b := collide.Pair(5)
	copy(changed[20*mib:], a)
	copy(base[20*mib:], b)
	for name, c := range map[string]struct {
		replica   []byte
		differing int64
	}{"equal": {changed, 0}, "different": {base, 3}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, changed, c.replica, nil)
			outcome, err := w.attempt(t.Context(), replication.NewID(), replication.KindVerify)
			must(t, err)
			if outcome.Equal() != (c.differing == 0) {
				t.Fatalf("equal: %v", outcome.Equal())
			}
			if got := w.progress.Figures().BlocksDiffering; got != c.differing {
				t.Fatalf("%d blocks differ, want %d", got, c.differing)
			}
			got, err := os.ReadFile(w.base)
			must(t, err)
			if !bytes.Equal(got, c.replica) {
				t.Fatal("a verify has written")
			}
		})
	}
}

// cutter ends a stream after so many messages in either direction.
type cutter struct {
	grpc.ServerStream
	left *int
}

func (c cutter) cut() error {
	if *c.left--; *c.left < 0 {
		return status.Error(codes.Unavailable, "cut")
	}
	return nil
}

func (c cutter) RecvMsg(m any) error {
	if err := c.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return c.cut()
}

// A connection cut at every message goes on where it was, and ends equal.
func TestCutAtEveryMessage(t *testing.T) {
	base := random(1, 34*mib)
	ours := scattered(base, 3, 60)
	for after := 1; after < 200; after += 1 + after/3 {
		w := newWorld(t, ours, base, nil)
		cuts := 0
		w.mangle = func(_ *grpc.StreamServerInfo, stream grpc.ServerStream) grpc.ServerStream {
			if cuts++; cuts > 3 {
				return stream
			}
			left := after
			return cutter{stream, &left}
		}
		w.transfer(replication.KindResync)
		w.merge()
		w.equal()
	}
}

// What a primary may not send is refused, and nothing of it is kept.
func TestHostilePrimary(t *testing.T) {
	size := int64(40 * mib)
	geometry, err := blockdiff.NewGeometry(size)
	must(t, err)
	plainFrame := func(off int64, n int) *vmreplicav1.Frame {
		builder := blockdiff.NewBuilder(geometry, 1<<20)
		must(t, builder.AddData(off, random(9, n)))
		frame, err := blockdiff.NewEncoder().Encode(geometry, builder.Take())
		must(t, err)
		return &vmreplicav1.Frame{Sequence: 1, Extents: frame.Extents, Codec: vmreplicav1.Codec(frame.Codec),
			PlaintextBytes: frame.PlaintextBytes, PlaintextDigest: frame.PlaintextDigest, Payload: frame.Payload}
	}
	frame := func(change func(*vmreplicav1.Frame)) *vmreplicav1.TransferRequest {
		f := plainFrame(0, 65536)
		change(f)
		return &vmreplicav1.TransferRequest{Message: &vmreplicav1.TransferRequest_Frame{Frame: f}}
	}
	proofs := func(first, count int64, hashes int) *vmreplicav1.TransferRequest {
		return &vmreplicav1.TransferRequest{Message: &vmreplicav1.TransferRequest_Proofs{Proofs: &vmreplicav1.SegmentProofs{
			Runs: []*vmreplicav1.SegmentProofRun{{FirstSegment: first, Count: count, Hashes: make([]byte, hashes)}}}}}
	}
	refine := func(blocks ...int64) *vmreplicav1.TransferRequest {
		return &vmreplicav1.TransferRequest{Message: &vmreplicav1.TransferRequest_Refine{Refine: &vmreplicav1.RefineRequest{Blocks: blocks}}}
	}
	cases := map[string]*vmreplicav1.TransferRequest{
		"a frame that is cut":              frame(func(f *vmreplicav1.Frame) { f.Payload = f.Payload[:len(f.Payload)/2] }),
		"a frame that lies about its size": frame(func(f *vmreplicav1.Frame) { f.PlaintextBytes = 4096 }),
		"a frame with another digest":      frame(func(f *vmreplicav1.Frame) { f.PlaintextDigest++ }),
		"a frame out of sequence":          frame(func(f *vmreplicav1.Frame) { f.Sequence = 9 }),
		"a frame without extents":          frame(func(f *vmreplicav1.Frame) { f.Extents = nil }),
		"a frame of an unknown codec":      frame(func(f *vmreplicav1.Frame) { f.Codec = 77 }),
		"a frame beyond what was digested": frame(func(f *vmreplicav1.Frame) { *f = *plainFrame(39*mib, 65536) }), //nolint:govet // fields only
		"a proof beyond what was digested": proofs(0, 3, 96),
		"a proof with a gap":               proofs(2, 1, 32),
		"a proof of a negative segment":    proofs(-1, 1, 32),
		"a proof of no segment":            proofs(0, 0, 0),
		"a proof of more than its hashes":  proofs(0, 1<<60, 32),
		"a refinement beyond the disk":     refine(1 << 40),
		"a refinement of a negative block": refine(-1),
		"an empty refinement":              refine(),
		"a refinement of more than credit": refine(make([]int64, 5000)...),
		"credit that was not under way":    {Message: &vmreplicav1.TransferRequest_DigestCredit{DigestCredit: &vmreplicav1.DigestCredit{Bytes: 1 << 40}}},
		"negative credit":                  {Message: &vmreplicav1.TransferRequest_DigestCredit{DigestCredit: &vmreplicav1.DigestCredit{Bytes: -1}}},
		"a finish before everything":       {Message: &vmreplicav1.TransferRequest_Finish{Finish: &vmreplicav1.TransferFinish{Root: make([]byte, 32)}}},
		"a second open":                    {Message: &vmreplicav1.TransferRequest_Open{Open: &vmreplicav1.TransferOpen{}}},
		"nothing":                          {},
	}
	for name, message := range cases {
		t.Run(name, func(t *testing.T) {
			base := random(3, int(size))
			w := newWorld(t, random(2, int(size)), base, nil)
			err := w.hostile(t, message, 8*mib)
			if err == nil || failure.Find(err).Reason != failure.ReasonProtocol {
				t.Fatalf("answered %v", err)
			}
			got, err := os.ReadFile(w.base)
			must(t, err)
			if !bytes.Equal(got, base) {
				t.Fatal("the base has changed")
			}
			w.transfer(replication.KindResync)
			w.merge()
			w.equal()
		})
	}
}

// hostile opens a stream by hand, waits for some digests, sends message and answers how the stream ended.
func (w *world) hostile(t *testing.T, message *vmreplicav1.TransferRequest, credit int64) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	client := w.link.Transfers(w.proof)
	id := replication.NewID()
	_, err := client.Begin(ctx, resync.Begin{Transfer: id, Kind: replication.KindResync,
		Disks: []resync.BeginDisk{{ID: diskID, SizeBytes: 40 * mib, LogicalSectorSize: 512}}})
	must(t, err)
	stream := newFakeStream(ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.receiver.Transfer(stream) }()
	stream.requests <- &vmreplicav1.TransferRequest{Message: &vmreplicav1.TransferRequest_Open{Open: &vmreplicav1.TransferOpen{
		Relationship: &vmreplicav1.Relationship{Vm: vmName, Uid: string(w.uid), Term: 1}, Transfer: string(id),
		Disk: diskID, Session: 1, DigestCreditBytes: credit}}}
	for digested := false; !digested; {
		select {
		case response := <-stream.responses:
			digested = response.GetDigests() != nil
		case err := <-ended:
			return fmt.Errorf("before the first digest: %w", err)
		}
	}
	stream.requests <- message
	for {
		select {
		case <-stream.responses:
		case err := <-ended:
			cancel()
			must(t, client.Abort(t.Context(), id))
			return err
		}
	}
}

// fakeStream is a primary's call without a network.
type fakeStream struct {
	grpc.ServerStream
	ctx       context.Context
	requests  chan *vmreplicav1.TransferRequest
	responses chan *vmreplicav1.TransferResponse
}

func newFakeStream(ctx context.Context) *fakeStream {
	return &fakeStream{ctx: ctx, requests: make(chan *vmreplicav1.TransferRequest, 16),
		responses: make(chan *vmreplicav1.TransferResponse)}
}

func (s *fakeStream) Context() context.Context { return s.ctx }

func (s *fakeStream) Recv() (*vmreplicav1.TransferRequest, error) {
	select {
	case request := <-s.requests:
		return request, nil
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

func (s *fakeStream) Send(response *vmreplicav1.TransferResponse) error {
	select {
	case s.responses <- response:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}
