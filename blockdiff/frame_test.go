package blockdiff_test

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"vmreplica/blockdiff"
)

var errVisit = errors.New("visit failed")

// visited is what a decoded frame said, copied.
type visited struct {
	extents []blockdiff.Extent
	data    []byte
}

func decode(t testing.TB, g blockdiff.Geometry, frame blockdiff.Frame) (visited, error) {
	t.Helper()
	var all visited
	err := blockdiff.NewDecoder().Decode(g, frame, func(extent blockdiff.Extent, data []byte) error {
		want := extent.Length
		if extent.Kind != blockdiff.ExtentData {
			want = 0
		}
		if int64(len(data)) != want {
			t.Errorf("extent %v came with %d bytes", extent, len(data))
		}
		all.extents = append(all.extents, extent)
		all.data = append(all.data, data...)
		return nil
	})
	return all, err
}

func encode(t testing.TB, g blockdiff.Geometry, plain *blockdiff.Plain) blockdiff.Frame {
	t.Helper()
	frame, err := blockdiff.NewEncoder().Encode(g, plain)
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

func data(offset, length int64) blockdiff.Extent {
	return blockdiff.Extent{Offset: offset, Length: length, Kind: blockdiff.ExtentData}
}

func zero(offset, length int64) blockdiff.Extent {
	return blockdiff.Extent{Offset: offset, Length: length, Kind: blockdiff.ExtentZero}
}

func unmapped(offset, length int64) blockdiff.Extent {
	return blockdiff.Extent{Offset: offset, Length: length, Kind: blockdiff.ExtentUnmapped}
}

// The bytes are the table in docs/wire.md: a change here is another protocol.
func TestExtentCodingGolden(t *testing.T) {
	for sentence, c := range map[string]struct {
		size    int64
		extents []blockdiff.Extent
		want    []byte
	}{
		"the first sub-block as data":          {mib, []blockdiff.Extent{data(0, 4*kib)}, []byte{0x00, 0x05}},
		"a whole block as zeros":               {mib, []blockdiff.Extent{zero(64*kib, 64*kib)}, []byte{0x20, 0x42}},
		"a larger range unmapped":              {mib, []blockdiff.Extent{unmapped(0, 512*kib)}, []byte{0x00, 0x83, 0x04}},
		"a second one behind the first":        {mib, []blockdiff.Extent{data(0, 4*kib), zero(12*kib, 4*kib)}, []byte{0x00, 0x05, 0x04, 0x06}},
		"a second one before the first":        {mib, []blockdiff.Extent{zero(8*kib, 4*kib), data(0, 4*kib)}, []byte{0x04, 0x06, 0x05, 0x05}},
		"the short end of the disk":            {4*kib + 512, []blockdiff.Extent{data(4*kib, 512)}, []byte{0x02, 0x05}},
		"all of a disk that is one sector":     {512, []blockdiff.Extent{data(0, 512)}, []byte{0x00, 0x05}},
		"the last sub-block of a 64 TiB disk":  {64 * tib, []blockdiff.Extent{zero(64*tib-4*kib, 4*kib)}, []byte{0xfe, 0xff, 0xff, 0xff, 0x7f, 0x06}},
		"the whole of a 64 TiB disk, unmapped": {64 * tib, []blockdiff.Extent{unmapped(0, 64*tib)}, []byte{0x00, 0x83, 0x80, 0x80, 0x80, 0x80, 0x02}},
	} {
		t.Run(sentence, func(t *testing.T) {
			g := geometry(t, c.size)
			var content int64
			for _, extent := range c.extents {
				if extent.Kind == blockdiff.ExtentData {
					content += extent.Length
				}
			}
			frame := encode(t, g, &blockdiff.Plain{Extents: c.extents, Data: make([]byte, content)})
			if !bytes.Equal(frame.Extents, c.want) {
				t.Errorf("coded as % x, want % x", frame.Extents, c.want)
			}
			if got, err := decode(t, g, frame); err != nil || !slices.Equal(got.extents, c.extents) {
				t.Errorf("decoded as %v, error %v", got.extents, err)
			}
		})
	}
}

func TestDecodeRefusesExtents(t *testing.T) {
	for sentence, c := range map[string]struct {
		size    int64
		coded   []byte
		because string
	}{
		"no extents":                           {mib, nil, "no extents"},
		"an extent without its length":         {mib, []byte{0x00}, "truncated"},
		"a number that does not end":           {mib, []byte{0x80}, "truncated"},
		"a number of more than 64 bits":        {mib, append(bytes.Repeat([]byte{0xff}, 10), 0x01, 0x06), "overlong"},
		"a number longer than it need be":      {mib, []byte{0x80, 0x00, 0x06}, "shortest"},
		"no kind":                              {mib, []byte{0x00, 0x04}, "kind 0"},
		"a length of nothing":                  {mib, []byte{0x00, 0x02}, "extent of 0 sub-blocks"},
		"a start before the disk":              {mib, []byte{0x01, 0x06}, "extent -1 sub-blocks from sub-block 0"},
		"a start at the disk's end":            {64 * kib, []byte{0x20, 0x06}, "extent 16 sub-blocks from sub-block 0"},
		"a step back beyond the disk's start":  {mib, []byte{0x04, 0x06, 0x07, 0x06}, "extent -4 sub-blocks from sub-block 3"},
		"an end behind the disk":               {64 * kib, []byte{0x00, 0x46}, "extent of 17 sub-blocks"},
		"a length that overflows":              {mib, []byte{0x00, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, "extent of 4611686018427387903 sub-blocks"},
		"a start that overflows":               {mib, []byte{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x06}, "extent 9223372036854775807 sub-blocks"},
		"a start below every number":           {mib, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x06}, "extent -9223372036854775808 sub-blocks"},
		"data that was not declared":           {mib, []byte{0x00, 0x05}, "more than the declared 0"},
		"a part of an extent behind a whole":   {mib, []byte{0x00, 0x06, 0x00}, "truncated"},
		"more extents than the limit":          {gib, bytes.Repeat([]byte{0x00, 0x06, 0x01, 0x06}, blockdiff.MaxFrameExtents/2+1), "more than 65536 extents"},
		"an extent on a disk that has nothing": {0, []byte{0x00, 0x06}, "disk of 0 sub-blocks"},
	} {
		t.Run(sentence, func(t *testing.T) {
			var g blockdiff.Geometry
			if c.size > 0 {
				g = geometry(t, c.size)
			}
			frame := blockdiff.Frame{Extents: c.coded, Codec: blockdiff.CodecNone, PlaintextDigest: emptyDigest}
			refuses(t, g, frame, c.because)
		})
	}
}

// emptyDigest is the xxh64 of nothing.
const emptyDigest = 0xef46db3751d8e999

// refuses decodes a frame that must be an ErrFrame before the first visit, for the reason given.
func refuses(t *testing.T, g blockdiff.Geometry, frame blockdiff.Frame, because string) {
	t.Helper()
	err := blockdiff.NewDecoder().Decode(g, frame, func(extent blockdiff.Extent, _ []byte) error {
		t.Errorf("extent %v was visited", extent)
		return nil
	})
	if !errors.Is(err, blockdiff.ErrFrame) || !strings.Contains(err.Error(), because) {
		t.Errorf("got %v, want it because of %q", err, because)
	}
}

func TestAsManyExtentsAsTheLimitAreDecoded(t *testing.T) {
	g := geometry(t, gib)
	coded := bytes.Repeat([]byte{0x00, 0x06, 0x01, 0x07}, blockdiff.MaxFrameExtents/2)
	frame := blockdiff.Frame{Extents: coded, Codec: blockdiff.CodecNone, PlaintextDigest: emptyDigest}
	got, err := decode(t, g, frame)
	if err != nil || len(got.extents) != blockdiff.MaxFrameExtents {
		t.Fatalf("%d extents, error %v", len(got.extents), err)
	}
	again := encode(t, g, &blockdiff.Plain{Extents: got.extents})
	if !bytes.Equal(again.Extents, coded) {
		t.Error("coded otherwise")
	}
}

func TestEncodeRefuses(t *testing.T) {
	g := geometry(t, mib+512)
	for sentence, plain := range map[string]blockdiff.Plain{
		"no extents":                    {},
		"too many extents":              {Extents: slices.Repeat([]blockdiff.Extent{zero(0, 4*kib)}, blockdiff.MaxFrameExtents+1)},
		"content without an extent":     {Extents: []blockdiff.Extent{zero(0, 4*kib)}, Data: make([]byte, 4*kib)},
		"an extent without content":     {Extents: []blockdiff.Extent{data(0, 4*kib)}},
		"a kind that is none":           {Extents: []blockdiff.Extent{{Length: 4 * kib}}},
		"an offset that is not 4 KiB":   {Extents: []blockdiff.Extent{zero(512, 4*kib)}},
		"a length that is not 4 KiB":    {Extents: []blockdiff.Extent{zero(0, 512)}},
		"a length of nothing":           {Extents: []blockdiff.Extent{zero(0, 0)}},
		"a negative length":             {Extents: []blockdiff.Extent{zero(4*kib, -4*kib)}},
		"a negative offset":             {Extents: []blockdiff.Extent{zero(-4*kib, 4*kib)}},
		"an end behind the disk":        {Extents: []blockdiff.Extent{zero(mib, 4*kib)}},
		"an end that overflows":         {Extents: []blockdiff.Extent{zero(4*kib, math.MaxInt64&^4095)}},
		"more content than a frame has": {Extents: slices.Repeat([]blockdiff.Extent{data(0, mib)}, 5), Data: make([]byte, 5*mib)},
	} {
		t.Run(sentence, func(t *testing.T) {
			if _, err := blockdiff.NewEncoder().Encode(g, &plain); !errors.Is(err, blockdiff.ErrFrame) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

// A random history of Builder calls, applied frame by frame, makes a disk equal to a plain byte slice.
func TestFramesRebuildADisk(t *testing.T) {
	encoder, decoder := blockdiff.NewEncoder(), blockdiff.NewDecoder()
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(17, seed))
		size := 512 * (1 + random.Int64N(4096))
		want, got := randomBytes(random, size), make([]byte, size)
		copy(got, want)
		g := geometry(t, size)
		builder := blockdiff.NewBuilder(g, int(random.Int64N(300*kib)))
		ship := func() {
			plain := builder.Take()
			frame, err := encoder.Encode(g, plain)
			plain.Release()
			if err == nil {
				err = decoder.Decode(g, frame, apply(got))
			}
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		for range 200 {
			if err := addRandom(random, builder, want); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if builder.Full() {
				ship()
			}
		}
		if !builder.Empty() {
			ship()
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("seed %d: the disks differ", seed)
		}
	}
}

// addRandom changes a random aligned range of disk, at most a block, and tells builder.
func addRandom(random *rand.Rand, builder *blockdiff.Builder, disk []byte) error {
	size := int64(len(disk))
	offset := random.Int64N((size+4*kib-1)/(4*kib)) * 4 * kib
	end := min(offset+(1+random.Int64N(16))*4*kib, size)
	piece := disk[offset:end]
	switch random.IntN(4) {
	case 0:
		clear(piece)
		return builder.AddZero(offset, end-offset)
	case 1:
		clear(piece)
		return builder.AddUnmapped(offset, end-offset)
	case 2:
		for i := range piece {
			piece[i] = byte(i >> 6)
		}
	default:
		copy(piece, randomBytes(random, end-offset))
	}
	return builder.AddData(offset, piece)
}

// apply writes what is visited to disk.
func apply(disk []byte) func(blockdiff.Extent, []byte) error {
	return func(extent blockdiff.Extent, data []byte) error {
		clear(disk[extent.Offset:extent.End()])
		copy(disk[extent.Offset:extent.End()], data)
		return nil
	}
}
