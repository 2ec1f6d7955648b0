package blockdiff_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"

	"vmreplica/blockdiff"
)

func TestEncodeChoosesTheCodec(t *testing.T) {
	g := geometry(t, 8*mib)
	random := rand.New(rand.NewPCG(21, 22))
	half := randomBytes(random, mib)
	for at := int64(0); at < mib; at += 64 * kib {
		clear(half[at : at+32*kib])
	}
	for sentence, c := range map[string]struct {
		data []byte
		want blockdiff.Codec
	}{
		"zstd for what repeats":            {bytes.Repeat([]byte("0123456789abcdef"), 1<<16), blockdiff.CodecZstd},
		"zstd for what repeats in one 4K":  {bytes.Repeat([]byte("0123456789abcdef"), 256), blockdiff.CodecZstd},
		"zstd for what is half compressed": {half, blockdiff.CodecZstd},
		"none for random content":          {randomBytes(random, mib), blockdiff.CodecNone},
		"none for a little random content": {randomBytes(random, 4*kib), blockdiff.CodecNone},
		"none for the most random content": {randomBytes(random, 4*mib), blockdiff.CodecNone},
		"zstd for the most content":        {make([]byte, 4*mib), blockdiff.CodecZstd},
	} {
		t.Run(sentence, func(t *testing.T) {
			plain := &blockdiff.Plain{Extents: []blockdiff.Extent{data(0, int64(len(c.data)))}, Data: c.data}
			frame := encode(t, g, plain)
			if frame.Codec != c.want || len(frame.Payload) > len(c.data) {
				t.Errorf("%v with %d bytes for %d", frame.Codec, len(frame.Payload), len(c.data))
			}
			if got, err := decode(t, g, frame); err != nil || !bytes.Equal(got.data, c.data) {
				t.Errorf("decoded %d bytes, error %v", len(got.data), err)
			}
		})
	}
}

func TestAFrameSharesNoMemoryWithItsPlain(t *testing.T) {
	g := geometry(t, 8*mib)
	content := randomBytes(rand.New(rand.NewPCG(23, 24)), 64*kib)
	plain := &blockdiff.Plain{Extents: []blockdiff.Extent{data(0, 64*kib)}, Data: bytes.Clone(content)}
	frame := encode(t, g, plain)
	clear(plain.Data)
	if got, err := decode(t, g, frame); err != nil || !bytes.Equal(got.data, content) {
		t.Fatalf("the frame changed with its plain: %v", err)
	}
}

func TestEncodeToUsesTheScratch(t *testing.T) {
	g := geometry(t, 8*mib)
	encoder := blockdiff.NewEncoder()
	plain := &blockdiff.Plain{
		Extents: []blockdiff.Extent{data(0, mib)},
		Data:    randomBytes(rand.New(rand.NewPCG(25, 26)), mib),
	}
	first, err := encoder.Encode(g, plain)
	if err != nil {
		t.Fatal(err)
	}
	second, err := encoder.EncodeTo(first.Payload, g, plain)
	if err != nil || &second.Payload[0] != &first.Payload[0] {
		t.Fatalf("another buffer was used, error %v", err)
	}
	if got, err := decode(t, g, second); err != nil || !bytes.Equal(got.data, plain.Data) {
		t.Fatalf("decode: %v", err)
	}
}

// compressible is a valid frame whose payload is zstd, and the disk it is for.
func compressible(t testing.TB) (blockdiff.Geometry, blockdiff.Frame) {
	g := geometry(t, 8*mib)
	content := bytes.Repeat([]byte("all work and no play "), 64<<10)[:256*kib]
	return g, encode(t, g, &blockdiff.Plain{
		Extents: []blockdiff.Extent{data(64*kib, 128*kib), zero(0, 4*kib), data(2*mib, 128*kib)},
		Data:    content,
	})
}

func zstdOf(t testing.TB, content []byte, options ...zstd.EOption) []byte {
	t.Helper()
	encoder, err := zstd.NewWriter(nil, options...)
	if err != nil {
		t.Fatal(err)
	}
	return encoder.EncodeAll(content, nil)
}

func TestDecodeRefusesPayloads(t *testing.T) {
	g, good := compressible(t)
	if _, err := decode(t, g, good); err != nil || good.Codec != blockdiff.CodecZstd {
		t.Fatalf("the frame to begin with: %v, %v", good.Codec, err)
	}
	content := bytes.Repeat([]byte("all work and no play "), 64<<10)[:256*kib]
	skippable := []byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4}
	for sentence, c := range map[string]struct {
		change  func(*blockdiff.Frame)
		because string
	}{
		"no codec":                       {func(f *blockdiff.Frame) { f.Codec = 0 }, "unknown codec 0"},
		"an unknown codec":               {func(f *blockdiff.Frame) { f.Codec = 3 }, "unknown codec 3"},
		"plaintext above the limit":      {func(f *blockdiff.Frame) { f.PlaintextBytes = blockdiff.MaxFramePlaintext + 1 }, "4194305 bytes of plaintext"},
		"plaintext of every bit":         {func(f *blockdiff.Frame) { f.PlaintextBytes = 1<<32 - 1 }, "4294967295 bytes of plaintext"},
		"a sub-block less declared":      {func(f *blockdiff.Frame) { f.PlaintextBytes -= 4096 }, "more than the declared"},
		"a sub-block more declared":      {func(f *blockdiff.Frame) { f.PlaintextBytes += 4096 }, "declared are"},
		"zstd said to be plain":          {func(f *blockdiff.Frame) { f.Codec = blockdiff.CodecNone }, "for 262144 of plaintext"},
		"plain said to be zstd":          {func(f *blockdiff.Frame) { f.Payload = content[:1000] }, "zstd header"},
		"zstd that is no smaller":        {func(f *blockdiff.Frame) { f.Payload = append(f.Payload, content...) }, "compressed payload of"},
		"no payload":                     {func(f *blockdiff.Frame) { f.Payload = nil }, "zstd header"},
		"trailing garbage":               {func(f *blockdiff.Frame) { f.Payload = append(f.Payload, 0) }, "1 bytes behind"},
		"a truncated payload":            {func(f *blockdiff.Frame) { f.Payload = f.Payload[:len(f.Payload)-1] }, "truncated"},
		"a payload of its header only":   {func(f *blockdiff.Frame) { f.Payload = f.Payload[:9] }, "truncated"},
		"a checksum that is cut off":     {func(f *blockdiff.Frame) { f.Payload = cutChecksum(t, content) }, "truncated"},
		"a second zstd frame":            {func(f *blockdiff.Frame) { f.Payload = append(f.Payload, f.Payload...) }, "bytes behind"},
		"an empty second zstd frame":     {func(f *blockdiff.Frame) { f.Payload = append(f.Payload, zstdOf(t, nil, zstd.WithZeroFrames(true))...) }, "bytes behind"},
		"a skippable frame behind":       {func(f *blockdiff.Frame) { f.Payload = append(f.Payload, skippable...) }, "bytes behind"},
		"a skippable frame before":       {func(f *blockdiff.Frame) { f.Payload = append(skippable, f.Payload...) }, "skippable"},
		"less content than said":         {func(f *blockdiff.Frame) { f.Payload = zstdOf(t, content[:len(content)-1]) }, "declares 262143 bytes"},
		"more content than said":         {func(f *blockdiff.Frame) { f.Payload = zstdOf(t, append(content, 0)) }, "declares 262145 bytes"},
		"a bomb":                         {func(f *blockdiff.Frame) { f.Payload = zstdOf(t, make([]byte, 64<<20)) }, "declares 67108864 bytes"},
		"a bomb that hides its size":     {func(f *blockdiff.Frame) { f.Payload = rleBlocks(256<<10, 2000) }, "decompress"},
		"blocks of less than their size": {func(f *blockdiff.Frame) { f.Payload = rleBlocks(256<<10, 1) }, "decompress"},
		"a window bomb":                  {func(f *blockdiff.Frame) { f.Payload = windowBomb }, "window of 536870912"},
		"a dictionary":                   {func(f *blockdiff.Frame) { f.Payload = withDictionary(t, content) }, "dictionary 7"},
		"a broken checksum of zstd":      {func(f *blockdiff.Frame) { f.Payload = brokenChecksum(t, content) }, "decompress"},
		"content without its size":       {func(f *blockdiff.Frame) { f.Payload = streamed(t, content) }, "declares 0 bytes"},
	} {
		t.Run(sentence, func(t *testing.T) {
			changed := good
			changed.Payload = bytes.Clone(good.Payload)
			c.change(&changed)
			refuses(t, g, changed, c.because)
		})
	}
}

// windowBomb is a frame that declares 256 KiB of content and asks for a window of 512 MiB.
var windowBomb = []byte{0x28, 0xb5, 0x2f, 0xfd, 0x80, 0x98, 0x00, 0x00, 0x04, 0x00, 0x01, 0x00, 0x00}

// rleBlocks is a zstd frame that declares size bytes of content and has count blocks of 128 KiB each.
func rleBlocks(size uint32, count int) []byte {
	const (
		singleSegment, fourByteSize = 1 << 5, 2 << 6
		last, rle, blockSize        = 1, 1 << 1, 128 << 10
	)
	p := binary.LittleEndian.AppendUint32(nil, 0xfd2fb528)
	p = append(p, singleSegment|fourByteSize)
	p = binary.LittleEndian.AppendUint32(p, size)
	for i := range count {
		header := uint32(blockSize<<3 | rle)
		if i == count-1 {
			header |= last
		}
		p = append(p, byte(header), byte(header>>8), byte(header>>16), 'x')
	}
	return p
}

func withDictionary(t testing.TB, content []byte) []byte {
	return zstdOf(t, content, zstd.WithEncoderDictRaw(7, bytes.Repeat([]byte("all work "), 100)))
}

func brokenChecksum(t testing.TB, content []byte) []byte {
	p := zstdOf(t, content, zstd.WithEncoderCRC(true))
	p[len(p)-1] ^= 1
	return p
}

func cutChecksum(t testing.TB, content []byte) []byte {
	p := zstdOf(t, content, zstd.WithEncoderCRC(true))
	return p[:len(p)-1]
}

func streamed(t testing.TB, content []byte) []byte {
	var stream bytes.Buffer
	encoder, err := zstd.NewWriter(&stream)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range [][]byte{content[:len(content)/2], content[len(content)/2:]} {
		if _, err := encoder.Write(part); err != nil {
			t.Fatal(err)
		}
		if err := encoder.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := encoder.Close(); err != nil {
		t.Fatal(err)
	}
	return stream.Bytes()
}

func TestDecodeAcceptsAChecksumOfZstd(t *testing.T) {
	g, frame := compressible(t)
	want, err := decode(t, g, frame)
	if err != nil {
		t.Fatal(err)
	}
	frame.Payload = zstdOf(t, want.data, zstd.WithEncoderCRC(true))
	if got, err := decode(t, g, frame); err != nil || !bytes.Equal(got.data, want.data) {
		t.Fatalf("got %v", err)
	}
}

func TestDecodeRefusesWhatIsNotWhatWasDigested(t *testing.T) {
	g, compressed := compressible(t)
	plain := randomBytes(rand.New(rand.NewPCG(27, 28)), 4*kib)
	stored := encode(t, g, &blockdiff.Plain{Extents: []blockdiff.Extent{data(0, 4*kib)}, Data: plain})
	stored.Payload[100] ^= 1
	compressed.PlaintextDigest ^= 1
	empty := encode(t, g, &blockdiff.Plain{Extents: []blockdiff.Extent{zero(0, 4*kib)}})
	empty.PlaintextDigest = 0
	for sentence, frame := range map[string]blockdiff.Frame{
		"in a stored payload":     stored,
		"in a compressed payload": compressed,
		"in no payload":           empty,
	} {
		t.Run(sentence, func(t *testing.T) {
			refuses(t, g, frame, "plaintext digest mismatch")
			if _, err := decode(t, g, frame); !errors.Is(err, blockdiff.ErrDigest) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestDecodeEndsWithTheErrorOfVisit(t *testing.T) {
	g, frame := compressible(t)
	visits := 0
	err := blockdiff.NewDecoder().Decode(g, frame, func(blockdiff.Extent, []byte) error {
		visits++
		if visits == 2 {
			return errVisit
		}
		return nil
	})
	if err != errVisit || visits != 2 {
		t.Fatalf("error %v after %d visits", err, visits)
	}
}

func TestAVisitCannotReachOtherContent(t *testing.T) {
	g, frame := compressible(t)
	err := blockdiff.NewDecoder().Decode(g, frame, func(extent blockdiff.Extent, data []byte) error {
		if cap(data) != len(data) {
			t.Errorf("extent %v: %d bytes with room for %d", extent, len(data), cap(data))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A refused frame may cost a zstd block or two beyond the declared size, not the gigabyte that it would expand to.
func TestARefusedBombAllocatesLittle(t *testing.T) {
	g, frame := compressible(t)
	decoder := blockdiff.NewDecoder()
	for name, payload := range map[string][]byte{
		"bomb":                     zstdOf(t, make([]byte, 64<<20)),
		"bomb that hides its size": rleBlocks(256<<10, 10_000),
		"window bomb":              windowBomb,
	} {
		frame.Payload = payload
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 10 {
			if err := decoder.Decode(g, frame, nil); !errors.Is(err, blockdiff.ErrFrame) {
				t.Errorf("a %s: %v", name, err)
			}
		}
		runtime.ReadMemStats(&after)
		if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 10<<20 {
			t.Errorf("ten of a %s allocate %d bytes", name, allocated)
		}
	}
}

func TestOneEncoderAndDecoderForManyGoroutines(t *testing.T) {
	g := geometry(t, 64*mib)
	encoder, decoder := blockdiff.NewEncoder(), blockdiff.NewDecoder()
	var group sync.WaitGroup
	for worker := range uint64(8) {
		group.Go(func() {
			random := rand.New(rand.NewPCG(29, worker))
			for range 20 {
				content := randomBytes(random, 64*kib)
				clear(content[:random.IntN(len(content))])
				builder := blockdiff.NewBuilder(g, 1<<20)
				if err := builder.AddData(random.Int64N(100)*64*kib, content); err != nil {
					t.Error(err)
				}
				plain := builder.Take()
				frame, err := encoder.Encode(g, plain)
				plain.Release()
				if err != nil {
					t.Error(err)
				}
				err = decoder.Decode(g, frame, func(_ blockdiff.Extent, got []byte) error {
					if xxhash.Sum64(got) != xxhash.Sum64(content) || !bytes.Equal(got, content) {
						t.Error("other content came back")
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}
