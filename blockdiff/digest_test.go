package blockdiff_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"

	"vmreplica/blockdiff"
	"vmreplica/internal/collide"
)

func randomBytes(random *rand.Rand, n int64) []byte {
	p := make([]byte, (n+7)/8*8)
	for i := 0; i < len(p); i += 8 {
		binary.NativeEndian.PutUint64(p[i:], random.Uint64())
	}
	return p[:n:n]
}

func padded(p []byte, size int) []byte {
	return append(bytes.Clone(p), make([]byte, size-len(p))...)
}

func TestDigestPadsWithZeros(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for _, n := range []int64{0, 1, 511, 512, 4095, 4096, 4097, 61_440, 65_024, 65_536} {
		block := randomBytes(random, n)
		whole := padded(block, blockdiff.BlockSize)
		if blockdiff.Digest(block) != xxhash.Sum64(whole) {
			t.Errorf("digest of %d bytes is not that of the padded block", n)
		}
		for i, digest := range blockdiff.SubDigests(block) {
			if want := xxhash.Sum64(whole[i*blockdiff.SubBlockSize:][:blockdiff.SubBlockSize]); digest != want {
				t.Errorf("digest of sub-block %d of %d bytes is not that of the padded one", i, n)
			}
		}
	}
}

func TestDigestGolden(t *testing.T) {
	if got := blockdiff.Digest(nil); got != 0x5983dda9f15715a4 {
		t.Errorf("digest of zeros is %#x", got)
	}
	if got := blockdiff.Digest(goldenBlock(0)); got != 0xd599e668726a149d {
		t.Errorf("digest of a full block is %#x", got)
	}
	if got := blockdiff.Digest(goldenBlock(257)); got != 0x0a515d13d738bdf3 {
		t.Errorf("digest of a short block is %#x", got)
	}
	subs := blockdiff.SubDigests(goldenBlock(257))
	if subs[0] != 0x7ae9ca10cc330c95 || subs[1] != 0xac869b6f32d8bbdb || subs[15] != subs[1] {
		t.Errorf("sub-block digests of a short block are %#x", subs)
	}
}

func TestIsZeroSeesEveryByte(t *testing.T) {
	for _, n := range []int{0, 1, 7, 8, 9, 512, 4095, 4096, 4097, 8192, 65_536} {
		p := make([]byte, n)
		if !blockdiff.IsZero(p) {
			t.Fatalf("%d zeros are not zero", n)
		}
		for i := range p {
			p[i] = 1 << (i % 8)
			if blockdiff.IsZero(p) {
				t.Fatalf("byte %d of %d was not seen", i, n)
			}
			p[i] = 0
		}
	}
}

func TestDifferingNames(t *testing.T) {
	const sub = blockdiff.SubBlockSize
	for sentence, c := range map[string]struct {
		length  int
		changed []int
		want    []blockdiff.Span
	}{
		"nothing in an equal block":                 {blockdiff.BlockSize, nil, nil},
		"one sub-block":                             {blockdiff.BlockSize, []int{5*sub + 17}, []blockdiff.Span{{5 * sub, sub}}},
		"neighbours as one":                         {blockdiff.BlockSize, []int{sub, 3*sub - 1}, []blockdiff.Span{{sub, 2 * sub}}},
		"two that do not touch apart":               {blockdiff.BlockSize, []int{0, 2 * sub}, []blockdiff.Span{{0, sub}, {2 * sub, sub}}},
		"the last byte":                             {blockdiff.BlockSize, []int{16*sub - 1}, []blockdiff.Span{{15 * sub, sub}}},
		"the end of a short block, without padding": {2*sub + 512, []int{2*sub + 511}, []blockdiff.Span{{2 * sub, 512}}},
		"a short end together with its neighbour":   {2*sub + 512, []int{sub, 2 * sub}, []blockdiff.Span{{sub, sub + 512}}},
	} {
		t.Run(sentence, func(t *testing.T) {
			local := randomBytes(rand.New(rand.NewPCG(7, 8)), int64(c.length))
			other := bytes.Clone(local)
			for _, at := range c.changed {
				other[at] ^= 0x10
			}
			remote := blockdiff.SubDigests(other)
			if got := blockdiff.Differing(local, &remote); !slices.Equal(got, c.want) {
				t.Fatalf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestDifferingIgnoresWhatIsBeyondTheBlock(t *testing.T) {
	block := make([]byte, 3*blockdiff.SubBlockSize+512)
	remote := blockdiff.SubDigests(block)
	for i := 4; i < len(remote); i++ {
		remote[i]++
	}
	if spans := blockdiff.Differing(block, &remote); spans != nil {
		t.Fatalf("got %v", spans)
	}
}

// Copying the spans of Differing makes the other copy equal, and every span begins where a byte compare says so.
func TestDifferingAgreesWithAByteCompare(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	for range 300 {
		local := randomBytes(random, 512*(1+random.Int64N(128)))
		other := bytes.Clone(local)
		for range random.IntN(12) {
			other[random.IntN(len(other))] ^= byte(1 + random.IntN(255))
		}
		remote := blockdiff.SubDigests(other)
		var want []blockdiff.Span
		for at := 0; at < len(local); at += blockdiff.SubBlockSize {
			end := min(at+blockdiff.SubBlockSize, len(local))
			if bytes.Equal(local[at:end], other[at:end]) {
				continue
			}
			if n := len(want); n > 0 && want[n-1].Offset+want[n-1].Length == at {
				want[n-1].Length = end - want[n-1].Offset
				continue
			}
			want = append(want, blockdiff.Span{Offset: at, Length: end - at})
		}
		if got := blockdiff.Differing(local, &remote); !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}

func TestACraftedBlockPassesEveryDigestAndNoProof(t *testing.T) {
	for seed := range int64(20) {
		a, b := collide.Pair(seed)
		if bytes.Equal(a, b) || blockdiff.Digest(a) != blockdiff.Digest(b) {
			t.Fatalf("pair %d: no collision of the block digest", seed)
		}
		remote := blockdiff.SubDigests(b)
		if blockdiff.SubDigests(a) != remote || blockdiff.Differing(a, &remote) != nil {
			t.Fatalf("pair %d: no collision of the sub-block digests", seed)
		}
		for _, prover := range provers(t) {
			if prover.Leaf(a) == prover.Leaf(b) {
				t.Fatalf("pair %d: %v leaves are equal", seed, prover.Algorithm())
			}
		}
	}
}

func TestHotPathsDoNotAllocate(t *testing.T) {
	block := randomBytes(rand.New(rand.NewPCG(11, 12)), blockdiff.BlockSize)
	zero := make([]byte, blockdiff.BlockSize)
	remote := blockdiff.SubDigests(block)
	leaves := make([]blockdiff.Hash, blockdiff.BlocksPerSegment)
	g := geometry(t, 64*mib)
	paths := map[string]func(){
		"Digest":                func() { blockdiff.Digest(block) },
		"Digest of a short one": func() { blockdiff.Digest(block[:5000]) },
		"SubDigests":            func() { blockdiff.SubDigests(block) },
		"Differing when equal":  func() { blockdiff.Differing(block, &remote) },
		"IsZero":                func() { blockdiff.IsZero(zero) },
	}
	for _, prover := range provers(t) {
		name := prover.Algorithm().String()
		paths[name+" Leaf"] = func() { leaves[0] = prover.Leaf(block) }
		paths[name+" Segment"] = func() { leaves[0] = prover.Segment(leaves) }
		paths[name+" ExtendZero"] = func() { leaves[0] = prover.ExtendZero(g, leaves[0], 0, 4) }
	}
	for name, path := range paths {
		if allocations := testing.AllocsPerRun(50, path); allocations != 0 {
			t.Errorf("%s allocates %v times", name, allocations)
		}
	}
}
