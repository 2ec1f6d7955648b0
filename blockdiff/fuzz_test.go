package blockdiff_test

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"vmreplica/blockdiff"
)

// Whatever extents decode lie on the disk, aligned, and are coded in one way only.
func FuzzFrameExtents(f *testing.F) {
	f.Add(int64(2048), []byte{0x00, 0x06})
	f.Add(int64(9), []byte{0x02, 0x06})
	f.Add(int64(2048), []byte{0x20, 0x42, 0x05, 0x07, 0x00, 0x83, 0x04})
	f.Add(int64(blockdiff.MaxDiskSize/512), []byte{0xfe, 0xff, 0xff, 0xff, 0x7f, 0x06})
	f.Add(int64(1), []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x06})
	decoder, encoder := blockdiff.NewDecoder(), blockdiff.NewEncoder()
	f.Fuzz(func(t *testing.T, sectors int64, coded []byte) {
		g, err := blockdiff.NewGeometry(sectors % (blockdiff.MaxDiskSize/512 + 1) * 512)
		if err != nil {
			return
		}
		var extents []blockdiff.Extent
		frame := blockdiff.Frame{Extents: coded, Codec: blockdiff.CodecNone, PlaintextDigest: emptyDigest}
		err = decoder.Decode(g, frame, func(extent blockdiff.Extent, data []byte) error {
			checkVisit(t, g, extent, data)
			extents = append(extents, extent)
			return nil
		})
		if err != nil {
			if !errors.Is(err, blockdiff.ErrFrame) || extents != nil {
				t.Fatalf("error %v after %d extents", err, len(extents))
			}
			return
		}
		again, err := encoder.Encode(g, &blockdiff.Plain{Extents: extents})
		if err != nil || !bytes.Equal(again.Extents, coded) {
			t.Fatalf("% x decodes to %v, which is coded % x, error %v", coded, extents, again.Extents, err)
		}
	})
}

func checkVisit(t *testing.T, g blockdiff.Geometry, extent blockdiff.Extent, data []byte) {
	t.Helper()
	if extent.Offset < 0 || extent.Length <= 0 || extent.End() > g.Size() ||
		extent.Offset%blockdiff.SubBlockSize != 0 ||
		extent.Length%blockdiff.SubBlockSize != 0 && extent.End() != g.Size() {
		t.Fatalf("extent %v on a disk of %d bytes", extent, g.Size())
	}
	if want := extent.Length; extent.Kind != blockdiff.ExtentData && len(data) != 0 ||
		extent.Kind == blockdiff.ExtentData && int64(len(data)) != want {
		t.Fatalf("extent %v came with %d bytes", extent, len(data))
	}
}

// A frame either decodes to what it declares or is refused before its first extent.
func FuzzDecode(f *testing.F) {
	g, good := compressible(f)
	f.Add(good.Extents, uint8(good.Codec), good.PlaintextBytes, good.PlaintextDigest, good.Payload)
	f.Add([]byte{0x00, 0x05}, uint8(1), uint32(4096), uint64(0), make([]byte, 4096))
	f.Add([]byte{0x00, 0x06}, uint8(1), uint32(0), uint64(emptyDigest), []byte(nil))
	f.Add(good.Extents, uint8(2), good.PlaintextBytes, uint64(0), windowBomb)
	f.Add(good.Extents, uint8(2), good.PlaintextBytes, uint64(0), rleBlocks(256<<10, 2))
	f.Add(good.Extents, uint8(2), good.PlaintextBytes, uint64(0), rleBlocks(256<<10, 9))
	f.Add([]byte{0x00, 0x05}, uint8(0xff), uint32(math.MaxUint32), uint64(math.MaxUint64), []byte{0x28, 0xb5, 0x2f, 0xfd})
	decoder := blockdiff.NewDecoder()
	f.Fuzz(func(t *testing.T, extents []byte, codec uint8, size uint32, digest uint64, payload []byte) {
		frame := blockdiff.Frame{
			Extents: extents, Codec: blockdiff.Codec(codec),
			PlaintextBytes: size, PlaintextDigest: digest, Payload: payload,
		}
		before := bytes.Clone(payload)
		var visits, content int64
		err := decoder.Decode(g, frame, func(extent blockdiff.Extent, data []byte) error {
			checkVisit(t, g, extent, data)
			visits, content = visits+1, content+int64(len(data))
			return nil
		})
		if !bytes.Equal(payload, before) {
			t.Fatal("the payload was written to")
		}
		if err != nil && (visits != 0 || !errors.Is(err, blockdiff.ErrFrame)) {
			t.Fatalf("error %v after %d visits", err, visits)
		}
		if err == nil && (visits == 0 || content != int64(size)) {
			t.Fatalf("%d visits with %d bytes of %d", visits, content, size)
		}
	})
}

// A run that passes describes blocks that the disk has, with their digests.
func FuzzRun(f *testing.F) {
	f.Add(int64(100), uint8(1), int64(0), int64(0), int64(1), []byte("8 bytes."))
	f.Add(int64(100), uint8(2), int64(0), int64(0), int64(1), []byte(nil))
	f.Add(int64(1<<37), uint8(3), int64(5), int64(5), int64(math.MaxInt64), []byte(nil))
	f.Add(int64(100), uint8(1), int64(-1), int64(-1), int64(2), []byte("no whole number"))
	f.Fuzz(func(t *testing.T, sectors int64, kind uint8, next, first, count int64, packed []byte) {
		digests, err := blockdiff.UnpackDigests(packed)
		if err != nil {
			if !errors.Is(err, blockdiff.ErrRun) || len(packed)%8 == 0 {
				t.Fatalf("%d bytes: %v", len(packed), err)
			}
			return
		}
		if again := blockdiff.PackDigests(nil, digests); !bytes.Equal(again, packed) {
			t.Fatalf("% x is packed again as % x", packed, again)
		}
		g, err := blockdiff.NewGeometry(sectors % (blockdiff.MaxDiskSize/512 + 1) * 512)
		if err != nil {
			return
		}
		run := blockdiff.Run{Kind: blockdiff.RunKind(kind), First: first, Count: count, Digests: digests}
		if err := blockdiff.CheckRun(g, next, run); err != nil {
			if !errors.Is(err, blockdiff.ErrRun) {
				t.Fatal(err)
			}
			return
		}
		_, firstLength := g.BlockRange(first)
		_, lastLength := g.BlockRange(first + count - 1)
		if first != next || count < 1 || firstLength == 0 || lastLength == 0 || len(digests) > 0 != (kind == 1) ||
			kind == 1 && int64(len(digests)) != count {
			t.Fatalf("run %d+%d of kind %d with %d digests passed", first, count, kind, len(digests))
		}
	})
}

func FuzzHashText(f *testing.F) {
	f.Add([]byte("3bdeaf8f8e98780b318106aafdc3ca257f73df123d97b69112b26044c91a7d56"))
	f.Add([]byte("3BDEAF8F8E98780B318106AAFDC3CA257F73DF123D97B69112B26044C91A7D56"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, text []byte) {
		var hash blockdiff.Hash
		if err := hash.UnmarshalText(text); err != nil {
			if !errors.Is(err, blockdiff.ErrHash) || !hash.IsZero() {
				t.Fatalf("error %v, hash %v", err, hash)
			}
			return
		}
		again, err := hash.MarshalText()
		if err != nil || !bytes.Equal(again, bytes.ToLower(text)) {
			t.Fatalf("%q is marshalled as %q, error %v", text, again, err)
		}
	})
}

// The spans that differ are inside the block, in order and apart, whatever the other side claims.
func FuzzDiffering(f *testing.F) {
	f.Add([]byte("short"), []byte("8 bytes."))
	f.Add(make([]byte, 5000), bytes.Repeat([]byte{1}, 128))
	f.Fuzz(func(t *testing.T, block, packed []byte) {
		block = block[:min(len(block), blockdiff.BlockSize)]
		claimed, _ := blockdiff.UnpackDigests(packed[:len(packed)&^7])
		var remote [blockdiff.SubBlocksPerBlock]uint64
		copy(remote[:], claimed)
		next := 0
		for _, span := range blockdiff.Differing(block, &remote) {
			if span.Offset < next || span.Offset%blockdiff.SubBlockSize != 0 || span.Length <= 0 ||
				span.Offset+span.Length > len(block) {
				t.Fatalf("span %v of a block of %d bytes after %d", span, len(block), next)
			}
			next = span.Offset + span.Length + 1
		}
	})
}
