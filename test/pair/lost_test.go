package pair_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"vmreplica/agent-primary/resync"
	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/receive"
	"vmreplica/blockdiff"
	"vmreplica/internal/disk"
	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// beforeProofs ends a stream when the first proof comes after a frame, once the frame was acknowledged as taken.
type beforeProofs struct {
	grpc.ServerStream
	framed bool
	taken  chan struct{}
}

func (s *beforeProofs) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	request, ok := m.(*vmreplicav1.TransferRequest)
	if !ok || request.GetProofs() == nil || !s.framed {
		s.framed = s.framed || ok && request.GetFrame() != nil
		return nil
	}
	<-s.taken
	return status.Error(codes.Unavailable, "cut")
}

func (s *beforeProofs) SendMsg(m any) error {
	response, ok := m.(*vmreplicav1.TransferResponse)
	if ok && response.GetAcknowledgement().GetFrameSequence() == 1 {
		close(s.taken)
	}
	return s.ServerStream.SendMsg(m)
}

// What a session wrote and never flushed is not durable because the next session found it there and proved it.
func TestAnEarlierSessionsWritesAreFlushed(t *testing.T) {
	theirs := random(1, 16*mib)
	ours := bytes.Clone(theirs)
	copy(ours[mib:], random(2, mib))
	w := newWorld(t, ours, theirs, nil)
	w.mangle = func(_ *grpc.StreamServerInfo, stream grpc.ServerStream) grpc.ServerStream {
		return &beforeProofs{ServerStream: stream, taken: make(chan struct{})}
	}
	id := replication.NewID()
	if _, err := w.attempt(t.Context(), id, replication.KindResync); !failure.Retryable(err) {
		t.Fatalf("the first attempt answered %v", err)
	}
	w.mangle = nil
	_, err := w.attempt(t.Context(), id, replication.KindResync)
	must(t, err)
	record, err := w.registry.Table().Get(vmName)
	must(t, err)
	if !record.Transfer.Disks[0].Proven {
		t.Fatal("the second attempt has proven nothing")
	}
	if held := heldOnDisk(t, w.storage.Path(record.Disks[0].Layers[0].File)); held != mib {
		t.Fatalf("the record says that everything is durable; the layer's file holds %d bytes of %d", held, mib)
	}
}

// heldOnDisk is what a layer's file holds without what its agent has in memory.
func heldOnDisk(t *testing.T, path string) (held int64) {
	t.Helper()
	content, err := os.ReadFile(path)
	must(t, err)
	copied := filepath.Join(t.TempDir(), "layer.qcow2")
	must(t, os.WriteFile(copied, content, 0o600))
	file, err := os.Open(copied)
	must(t, err)
	layer, err := qcow2.Open(durable.NewFile(file), durable.ReadOnly)
	must(t, err)
	defer layer.Close()
	for extent, err := range layer.Extents(0, layer.Size()) {
		must(t, err)
		if extent.Kind == disk.Data {
			held += extent.Length
		}
	}
	return held
}

// failing is a storage whose first receiving layer cannot be flushed, however often, until it is opened anew.
type failing struct {
	chain.Storage
	err error
}

type failingLayer struct {
	disk.Layer
	err error
}

func (l failingLayer) Flush() error { return l.err }

func (s failing) CreateLayer(l chain.Layer, size int64, sectorSize int) (disk.Layer, error) {
	layer, err := s.Storage.CreateLayer(l, size, sectorSize)
	return failingLayer{layer, s.err}, err
}

// worldThatFails is a world whose receiver works on a failing storage.
func worldThatFails(t *testing.T, err error) *world {
	w := newWorld(t, random(2, 20*mib), random(3, 20*mib), nil)
	w.receiver = receive.New(receive.Config{
		Registry: chain.NewRegistry(w.registry.Table(), failing{w.storage, err}), Space: w.storage,
		Gate: gate{w.registry.Table()}, Log: slog.New(slog.DiscardHandler), Limits: receive.DefaultLimits(),
	})
	t.Cleanup(w.receiver.Close)
	w.serve()
	return w
}

// A flush that found no room is final for the open layer only: the next attempt opens it anew and goes on.
func TestFullStorageIsGoneOnWith(t *testing.T) {
	w := worldThatFails(t, syscall.ENOSPC)
	id := replication.NewID()
	if _, err := w.attempt(t.Context(), id, replication.KindResync); !failure.Retryable(err) ||
		failure.Find(err).Reason != failure.ReasonStorageFull {
		t.Fatalf("answered %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		_, err := w.attempt(ctx, id, replication.KindResync)
		if err == nil {
			return
		}
		if failure.Find(err).Reason == failure.ReasonStorageFull || !failure.Retryable(err) {
			t.Fatalf("with room again: %v", err)
		}
	}
}

// A failed sync ends the transfer for good, for want of space as well: what it lost still reads as written.
func TestFailedSyncEndsTheTransfer(t *testing.T) {
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
		t.Run(cause.Error(), func(t *testing.T) {
			w := worldThatFails(t, durable.SyncFailed(cause))
			id := replication.NewID()
			if _, err := w.attempt(t.Context(), id, replication.KindResync); err == nil {
				t.Fatal("nothing failed")
			}
			_, err := w.attempt(t.Context(), id, replication.KindResync)
			if err == nil || failure.Find(err).Reason != failure.ReasonStorageFailed {
				t.Fatalf("going on with it answered %v", err)
			}
		})
	}
}

// A verify takes no frame, whoever sends one.
func TestVerifyTakesNoFrame(t *testing.T) {
	base := random(3, 40*mib)
	w := newWorld(t, random(2, 40*mib), base, nil)
	id := replication.NewID()
	_, err := w.link.Transfers(w.proof).Begin(t.Context(), resync.Begin{Transfer: id, Kind: replication.KindVerify,
		Disks: []resync.BeginDisk{{ID: diskID, SizeBytes: 40 * mib, LogicalSectorSize: 512}}})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream := newFakeStream(ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.receiver.Transfer(stream) }()
	stream.requests <- &vmreplicav1.TransferRequest{Message: &vmreplicav1.TransferRequest_Open{Open: &vmreplicav1.TransferOpen{
		Relationship: &vmreplicav1.Relationship{Vm: vmName, Uid: string(w.uid), Term: 1}, Transfer: string(id),
		Disk: diskID, Session: 1, DigestCreditBytes: 8 * mib}}}
	for response := range stream.responses {
		if response.GetDigests() != nil {
			break
		}
	}
	stream.requests <- &vmreplicav1.TransferRequest{Message: &vmreplicav1.TransferRequest_Frame{
		Frame: frameOf(t, 40*mib, 0, random(9, 65536))}}
	for {
		select {
		case <-stream.responses:
			continue
		case err = <-ended:
		}
		break
	}
	if err == nil || failure.Find(err).Reason != failure.ReasonProtocol {
		t.Fatalf("answered %v", err)
	}
	got, err := os.ReadFile(w.base)
	must(t, err)
	if !bytes.Equal(got, base) {
		t.Fatal("a verify has written")
	}
}

func frameOf(t *testing.T, size, off int64, content []byte) *vmreplicav1.Frame {
	t.Helper()
	geometry, err := blockdiff.NewGeometry(size)
	must(t, err)
	builder := blockdiff.NewBuilder(geometry, 1<<20)
	must(t, builder.AddData(off, content))
	frame, err := blockdiff.NewEncoder().Encode(geometry, builder.Take())
	must(t, err)
	return &vmreplicav1.Frame{Sequence: 1, Extents: frame.Extents, Codec: vmreplicav1.Codec(frame.Codec),
		PlaintextBytes: frame.PlaintextBytes, PlaintextDigest: frame.PlaintextDigest, Payload: frame.Payload}
}

// The disks of a transfer whose primary has vanished are closed; the transfer stays open.
func TestDisksThatNobodyUsesAreClosed(t *testing.T) {
	w := newWorld(t, random(1, 4*mib), random(2, 4*mib), nil)
	id := replication.NewID()
	_, err := w.link.Transfers(w.proof).Begin(t.Context(), resync.Begin{Transfer: id, Kind: replication.KindResync,
		Disks: []resync.BeginDisk{{ID: diskID, SizeBytes: 4 * mib, LogicalSectorSize: 512}}})
	must(t, err)
	vm := w.registry.VM(vmName)
	w.receiver.CloseIdle(time.Hour)
	if len(vm.Doing()) != 1 {
		t.Fatal("the disks are closed while they may be in use")
	}
	w.receiver.CloseIdle(0)
	if len(vm.Doing()) != 0 {
		t.Error("the disks are still held")
	}
	if _, err := vm.Disk(diskID); err == nil {
		t.Error("the disks are still open")
	}
	for {
		if _, err := w.attempt(t.Context(), id, replication.KindResync); err == nil {
			break
		} else if !failure.Retryable(err) {
			t.Fatal(err)
		}
	}
}
