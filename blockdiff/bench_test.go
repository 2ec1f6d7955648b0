package blockdiff_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"vmreplica/blockdiff"
)

func BenchmarkDigest(b *testing.B) {
	block := randomBytes(rand.New(rand.NewPCG(1, 1)), blockdiff.BlockSize)
	b.SetBytes(blockdiff.BlockSize)
	for b.Loop() {
		blockdiff.Digest(block)
	}
}

func BenchmarkSubDigests(b *testing.B) {
	block := randomBytes(rand.New(rand.NewPCG(1, 1)), blockdiff.BlockSize)
	b.SetBytes(blockdiff.BlockSize)
	for b.Loop() {
		blockdiff.SubDigests(block)
	}
}

// What a pass does to every block that it reads, over a segment that no cache holds whole.
func BenchmarkDigestAndLeaf(b *testing.B) {
	segment := randomBytes(rand.New(rand.NewPCG(1, 1)), blockdiff.SegmentSize)
	for _, prover := range provers(b) {
		b.Run(prover.Algorithm().String(), func(b *testing.B) {
			b.SetBytes(blockdiff.SegmentSize)
			b.ReportAllocs()
			for b.Loop() {
				for at := 0; at < len(segment); at += blockdiff.BlockSize {
					block := segment[at : at+blockdiff.BlockSize]
					blockdiff.IsZero(block)
					blockdiff.Digest(block)
					prover.Leaf(block)
				}
			}
		})
	}
}

func BenchmarkIsZero(b *testing.B) {
	for _, size := range []int{blockdiff.BlockSize, blockdiff.SegmentSize} {
		zeros := make([]byte, size)
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				blockdiff.IsZero(zeros)
			}
		})
	}
}

func BenchmarkExtendZero(b *testing.B) {
	g := geometry(b, blockdiff.MaxDiskSize)
	for _, prover := range provers(b) {
		b.Run(prover.Algorithm().String(), func(b *testing.B) {
			chain := prover.Start(g)
			for b.Loop() {
				chain = prover.ExtendZero(g, chain, 0, 1)
			}
		})
	}
}

// Frames of 1 MiB of three kinds of content, both ways.
func BenchmarkFrame(b *testing.B) {
	random := randomBytes(rand.New(rand.NewPCG(1, 1)), mib)
	text := bytes.Repeat([]byte("Jan 01 00:00:00 host service[123]: a line of a log, more or less the same\n"), 16_000)
	mixed := bytes.Clone(random)
	for at := 0; at < len(mixed); at += 64 << 10 {
		copy(mixed[at:], text[at/3:at/3+32<<10])
	}
	g := geometry(b, 64*mib)
	for _, c := range []struct {
		name string
		data []byte
	}{{"random", random}, {"text", text[:mib]}, {"mixed", mixed}} {
		plain := &blockdiff.Plain{
			Extents: []blockdiff.Extent{{Length: mib, Kind: blockdiff.ExtentData}},
			Data:    c.data,
		}
		encoder, decoder := blockdiff.NewEncoder(), blockdiff.NewDecoder()
		frame, err := encoder.Encode(g, plain)
		if err != nil {
			b.Fatal(err)
		}
		b.Run("encode/"+c.name, func(b *testing.B) {
			b.SetBytes(mib)
			b.ReportAllocs()
			var scratch []byte
			for b.Loop() {
				frame, _ := encoder.EncodeTo(scratch, g, plain)
				scratch = frame.Payload
			}
			b.ReportMetric(float64(len(frame.Payload))/float64(mib), "ratio")
		})
		b.Run("decode/"+c.name, func(b *testing.B) {
			b.SetBytes(mib)
			b.ReportAllocs()
			for b.Loop() {
				if err := decoder.Decode(g, frame, func(blockdiff.Extent, []byte) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
