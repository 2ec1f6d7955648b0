package blockdiff_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"vmreplica/blockdiff"
)

func TestBuilderJoinsNeighboursOfOneKind(t *testing.T) {
	const sub = int64(blockdiff.SubBlockSize)
	builder := blockdiff.NewBuilder(geometry(t, mib), 1<<20)
	content := bytes.Repeat([]byte{1}, 4096)
	for _, err := range []error{
		builder.AddData(0, content), builder.AddData(sub, content),
		builder.AddZero(2*sub, sub), builder.AddZero(3*sub, 2*sub),
		builder.AddUnmapped(5*sub, sub), builder.AddUnmapped(7*sub, sub),
		builder.AddData(8*sub, content), builder.AddData(6*sub, content),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []blockdiff.Extent{
		data(0, 2*sub), zero(2*sub, 3*sub), unmapped(5*sub, sub), unmapped(7*sub, sub), data(8*sub, sub), data(6*sub, sub),
	}
	if builder.Extents() != len(want) || builder.Bytes() != 4*4096 || builder.Empty() {
		t.Errorf("%d extents, %d bytes", builder.Extents(), builder.Bytes())
	}
	if plain := builder.Take(); !slices.Equal(plain.Extents, want) {
		t.Errorf("got %v", plain.Extents)
	}
	if !builder.Empty() || builder.Bytes() != 0 || builder.Extents() != 0 {
		t.Error("the builder is not empty after Take")
	}
}

func TestBuilderCopiesWhatItIsGiven(t *testing.T) {
	builder := blockdiff.NewBuilder(geometry(t, mib), 1<<20)
	content := bytes.Repeat([]byte{1}, 4096)
	if err := builder.AddData(0, content); err != nil {
		t.Fatal(err)
	}
	clear(content)
	if plain := builder.Take(); !bytes.Equal(plain.Data, bytes.Repeat([]byte{1}, 4096)) {
		t.Error("the content changed with the caller's buffer")
	}
}

func TestBuilderRefusesAndKeepsWhatItHas(t *testing.T) {
	g := geometry(t, 8*mib+512)
	for sentence, add := range map[string]func(*blockdiff.Builder) error{
		"an odd offset":          func(b *blockdiff.Builder) error { return b.AddData(512, make([]byte, 4096)) },
		"an odd length":          func(b *blockdiff.Builder) error { return b.AddData(0, make([]byte, 100)) },
		"no content":             func(b *blockdiff.Builder) error { return b.AddData(0, nil) },
		"an end behind the disk": func(b *blockdiff.Builder) error { return b.AddData(8*mib, make([]byte, 4096)) },
		"a negative range":       func(b *blockdiff.Builder) error { return b.AddZero(4096, -4096) },
		"a start behind the end": func(b *blockdiff.Builder) error { return b.AddUnmapped(16*mib, 4096) },
		"more than a frame holds": func(b *blockdiff.Builder) error {
			return b.AddData(0, make([]byte, blockdiff.MaxFramePlaintext))
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			builder := blockdiff.NewBuilder(g, 1<<20)
			if err := builder.AddData(8*mib, make([]byte, 512)); err != nil {
				t.Fatal(err)
			}
			if err := add(builder); !errors.Is(err, blockdiff.ErrFrame) {
				t.Errorf("got %v", err)
			}
			if builder.Bytes() != 512 || builder.Extents() != 1 {
				t.Errorf("%d bytes in %d extents are left", builder.Bytes(), builder.Extents())
			}
		})
	}
}

// While Full does not say so, a block of sixteen extents always fits; and what was gathered can be coded.
func TestBuilderTakesABlockUntilItIsFull(t *testing.T) {
	for sentence, c := range map[string]struct {
		limit int
		add   func(b *blockdiff.Builder, block int64) error
	}{
		"of content with the smallest limit": {0, addWholeBlock},
		"of content with the usual limit":    {1 << 20, addWholeBlock},
		"of content with the largest limit":  {blockdiff.MaxFramePlaintext, addWholeBlock},
		"of content with an absurd limit":    {1 << 40, addWholeBlock},
		"of alternating extents":             {blockdiff.MaxFramePlaintext, addAlternating},
	} {
		t.Run(sentence, func(t *testing.T) {
			g := geometry(t, tib)
			builder := blockdiff.NewBuilder(g, c.limit)
			if err := builder.AddData(0, make([]byte, blockdiff.SubBlockSize)); err != nil {
				t.Fatal(err)
			}
			for block := int64(1); !builder.Full(); block++ {
				if err := c.add(builder, block); err != nil {
					t.Fatalf("block %d: %v", block, err)
				}
			}
			plain := builder.Take()
			defer plain.Release()
			encode(t, g, plain)
		})
	}
}

func addWholeBlock(b *blockdiff.Builder, block int64) error {
	return b.AddData(block*blockdiff.BlockSize, make([]byte, blockdiff.BlockSize))
}

func addAlternating(b *blockdiff.Builder, block int64) error {
	for i := range int64(blockdiff.SubBlocksPerBlock) {
		add := b.AddZero
		if i%2 == 1 {
			add = b.AddUnmapped
		}
		if err := add(block*blockdiff.BlockSize+i*blockdiff.SubBlockSize, blockdiff.SubBlockSize); err != nil {
			return err
		}
	}
	return nil
}

func TestAReleasedBufferIsNotShared(t *testing.T) {
	g := geometry(t, 64*mib)
	random := rand.New(rand.NewPCG(19, 20))
	first, second := blockdiff.NewBuilder(g, 1<<20), blockdiff.NewBuilder(g, 1<<20)
	taken := first.Take()
	taken.Release()
	for range 20 {
		a, b := randomBytes(random, 64*kib), randomBytes(random, 64*kib)
		if err := errors.Join(first.AddData(0, a), second.AddData(0, b)); err != nil {
			t.Fatal(err)
		}
		left, right := first.Take(), second.Take()
		if !bytes.Equal(left.Data, a) || !bytes.Equal(right.Data, b) {
			t.Fatal("two frames share a buffer")
		}
		left.Release()
		left.Release()
		right.Release()
		if left.Data != nil {
			t.Fatal("content is left after Release")
		}
	}
}
