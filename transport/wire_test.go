package transport_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
	"vmreplica/transport"
)

func TestWireBytesAreTheMessagesOfTheCountedCalls(t *testing.T) {
	client := pair(t, transport.ServerConfig{}, &transferServer{transfer: digestFrames})
	outerCtx, outer := transport.CountWire(t.Context())
	var counts []*transport.WireBytes
	var want int64
	for range 2 {
		ctx, count := transport.CountWire(outerCtx)
		counts = append(counts, count)
		stream, err := vmreplicav1.NewTransferServiceClient(client).Transfer(ctx)
		if err != nil {
			t.Fatal(err)
		}
		want = 0
		for range 3 {
			message := frame(make([]byte, 1+rand.IntN(1<<20)))
			want += int64(proto.Size(message)) + 5
			if err := stream.Send(message); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		stream.CloseSend()
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if count.Sent() != want {
			t.Errorf("%d bytes sent, want %d", count.Sent(), want)
		}
		// Three answers of a 32-byte digest, with headers and trailers.
		if count.Received() < 3*(32+5) || count.Received() > 3*(32+5)+1000 {
			t.Errorf("%d bytes received", count.Received())
		}
	}
	if err := hello(t, client); err != nil {
		t.Fatal(err)
	}
	if sum := counts[0].Sent() + counts[1].Sent(); outer.Sent() != sum {
		t.Errorf("%d bytes of both, want %d", outer.Sent(), sum)
	}
}

// BenchmarkStream moves frames of 1 MiB over one stream on the loopback device, mutual TLS.
func BenchmarkStream(b *testing.B) {
	drain := func(stream transferStream) error {
		for {
			if _, err := stream.Recv(); err != nil {
				if errors.Is(err, io.EOF) {
					return stream.Send(&vmreplicav1.TransferResponse{})
				}
				return err
			}
		}
	}
	client := pair(b, transport.ServerConfig{}, &transferServer{transfer: drain})
	payload := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(payload)
	stream, err := vmreplicav1.NewTransferServiceClient(client).Transfer(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(payload)))
	b.ReportAllocs()
	for b.Loop() {
		if err := stream.Send(frame(payload)); err != nil {
			b.Fatal(err)
		}
	}
	stream.CloseSend()
	if _, err := stream.Recv(); err != nil {
		b.Fatal(err)
	}
}
