package blockdiff_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"vmreplica/blockdiff"
)

func provers(t testing.TB) []*blockdiff.Prover {
	t.Helper()
	var all []*blockdiff.Prover
	for _, algorithm := range []blockdiff.Algorithm{blockdiff.BLAKE3, blockdiff.SHA256} {
		prover, err := blockdiff.NewProver(algorithm)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, prover)
	}
	return all
}

// The golden disk has content in its first block, in the last block of its first segment and in its last, short
// block, and zeros elsewhere.
const goldenSize = 16<<20 + 64<<10 + 1536

func goldenBlock(block int64) []byte {
	p := make([]byte, min(blockdiff.BlockSize, goldenSize-block*blockdiff.BlockSize))
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], uint64(block+1)*0x9e3779b97f4a7c15+uint64(i/8))
	}
	return p
}

// These values were computed by an implementation that shares no code with this package. They are the wire:
// a change here is another protocol.
func TestProofGolden(t *testing.T) {
	golden := map[string]map[string]string{
		"blake3": {
			"zero leaf":       "3bdeaf8f8e98780b318106aafdc3ca257f73df123d97b69112b26044c91a7d56",
			"zero segment":    "f74f721afca1d8c99a7b7d520bc9e34b97440b022abd7c1b3b3672a6b941855d",
			"leaf of block 0": "d7e26a0df20ff1c8b986ac922a441d28353b1c2f6a11762ddd5e1e2c50015f43",
			"leaf of last":    "c4fcf44d5acc7aca903a8b085883148698fdf7c41c438de859567ea757ec0287",
			"segment 0":       "570adf7e6165b79681c0341d663195eb8103f300ee1ec2b4a4d37396a4a26d55",
			"segment 1":       "55516c8ac89818572676f7399366593c719c51c2f16dd60d3a0054a7cf4cbdbc",
			"start":           "4d08442d14ad6a57f573f3ebdb4378d2a362b0ed641cff4fc5c3f601e2925286",
			"root":            "5a2eed4efd931fa1ed5672b7d6378f004aa5e96ab14a22e596ecfc96fd6ba66a",
			"combined":        "3ec3e81ba1714295f164e4a3c9b92b208da1eacd2680a63afc5c07e1b3a9ed48",
		},
		"sha256": {
			"zero leaf":       "de2f256064a0af797747c2b97505dc0b9f3df0de4f489eac731c23ae9ca9cc31",
			"zero segment":    "128c65b00292719558d700342e22de5f49e757ff170857363b555c210ae3cc51",
			"leaf of block 0": "660265111a7a945e3907ef3a7782184149d6b6a4c613932acba88aeae0919a3d",
			"leaf of last":    "d91a1b59d5da13241bed3647654d1dd141d81ab116f120d0dc7c6b97c93b39c6",
			"segment 0":       "586c33c0194767b9a9e41adba2af7821f31328a715234a397cb74ec8fbd1dc88",
			"segment 1":       "2be7cdc2355bde2b49fec9327f155d14abfae978d01aec4d6e008cce37d1683f",
			"start":           "f9baa4cf3a2276e87658e9c45aeeaf36dcd07b671fba2da7f2a4f0ea858e29ca",
			"root":            "27a0493c76d621dd23b3d3da490ca07d48a483225497f79b1d5ecbc82e59f042",
			"combined":        "c9d9056fef62f7f8a8d31e11e85af49a64052b83c6caa7f061f38c62f4fbd91f",
		},
	}
	g := geometry(t, goldenSize)
	for _, prover := range provers(t) {
		leaves := make([]blockdiff.Hash, g.Blocks())
		for block := range leaves {
			leaves[block] = prover.ZeroLeaf()
		}
		for _, block := range []int64{0, 255, 257} {
			leaves[block] = prover.Leaf(goldenBlock(block))
		}
		segments := []blockdiff.Hash{prover.Segment(leaves[:256]), prover.Segment(leaves[256:])}
		root := prover.Extend(prover.Extend(prover.Start(g), segments[0]), segments[1])
		got := map[string]blockdiff.Hash{
			"zero leaf":       prover.ZeroLeaf(),
			"zero segment":    prover.ZeroSegment(256),
			"leaf of block 0": leaves[0],
			"leaf of last":    leaves[257],
			"segment 0":       segments[0],
			"segment 1":       segments[1],
			"start":           prover.Start(g),
			"root":            root,
			"combined":        prover.Combine([]string{"root", "data1"}, []blockdiff.Hash{root, prover.ZeroLeaf()}),
		}
		for name, hash := range got {
			if want := golden[prover.Algorithm().String()][name]; hash.String() != want {
				t.Errorf("%v %s is %v, want %s", prover.Algorithm(), name, hash, want)
			}
		}
	}
}

func TestAnUnknownAlgorithmHasNoProver(t *testing.T) {
	for _, algorithm := range []blockdiff.Algorithm{0, 3, 255} {
		if _, err := blockdiff.NewProver(algorithm); !errors.Is(err, blockdiff.ErrAlgorithm) {
			t.Errorf("algorithm %d: %v", algorithm, err)
		}
		if speed := blockdiff.MeasureSpeed(algorithm); speed != 0 {
			t.Errorf("algorithm %d: %d bytes/s", algorithm, speed)
		}
	}
}

func TestZeroConstantsAreWhatZerosHashTo(t *testing.T) {
	for _, prover := range provers(t) {
		if prover.ZeroLeaf() != prover.Leaf(make([]byte, blockdiff.BlockSize)) || prover.ZeroLeaf() != prover.Leaf(nil) {
			t.Errorf("%v: ZeroLeaf is not the leaf of zeros", prover.Algorithm())
		}
		var leaves []blockdiff.Hash
		for blocks := int64(1); blocks <= blockdiff.BlocksPerSegment; blocks++ {
			leaves = append(leaves, prover.ZeroLeaf())
			if prover.ZeroSegment(blocks) != prover.Segment(leaves) {
				t.Fatalf("%v: ZeroSegment of %d blocks is not the segment of its leaves", prover.Algorithm(), blocks)
			}
		}
		for _, blocks := range []int64{-1, 0, blockdiff.BlocksPerSegment + 1, math.MaxInt64} {
			if !prover.ZeroSegment(blocks).IsZero() {
				t.Errorf("%v: a segment of %d blocks has a hash", prover.Algorithm(), blocks)
			}
		}
		if !prover.Segment(nil).IsZero() || !prover.Segment(append(leaves, leaves[0])).IsZero() {
			t.Errorf("%v: a segment of 0 or 257 blocks has a hash", prover.Algorithm())
		}
	}
}

func TestLeafPadsWithZeros(t *testing.T) {
	random := rand.New(rand.NewPCG(13, 14))
	for _, prover := range provers(t) {
		// A full random block in between leaves its bytes in the buffer that the padding uses.
		for _, n := range []int64{512, 65_024, 65_536, 1024, 4096} {
			block := randomBytes(random, n)
			if prover.Leaf(block) != prover.Leaf(padded(block, blockdiff.BlockSize)) {
				t.Errorf("%v: leaf of %d bytes is not that of the padded block", prover.Algorithm(), n)
			}
		}
	}
}

func TestExtendZeroIsExtendStepByStep(t *testing.T) {
	random := rand.New(rand.NewPCG(15, 16))
	for _, prover := range provers(t) {
		for range 60 {
			g := geometry(t, 512*(1+random.Int64N(600_000)))
			first := random.Int64N(g.Segments())
			count := random.Int64N(g.Segments() - first + 1)
			start := prover.Leaf([]byte{byte(random.Uint32())})
			want := start
			for segment := first; segment < first+count; segment++ {
				_, blocks := g.SegmentBlocks(segment)
				leaves := make([]blockdiff.Hash, blocks)
				for i := range leaves {
					leaves[i] = prover.ZeroLeaf()
				}
				want = prover.Extend(want, prover.Segment(leaves))
			}
			if got := prover.ExtendZero(g, start, first, count); got != want {
				t.Fatalf("size %d, segments %d+%d: %v, want %v", g.Size(), first, count, got, want)
			}
		}
	}
}

func TestExtendZeroStaysInsideTheDisk(t *testing.T) {
	prover := provers(t)[0]
	g := geometry(t, 40*mib)
	start := prover.Start(g)
	if prover.ExtendZero(g, start, 1, math.MaxInt64) != prover.ExtendZero(g, start, 1, 2) {
		t.Error("segments behind the disk were counted")
	}
	for _, c := range [][2]int64{{3, 1}, {-1, 1}, {0, 0}, {1, -1}, {math.MaxInt64, math.MaxInt64}, {0, math.MinInt64}} {
		if prover.ExtendZero(g, start, c[0], c[1]) != start {
			t.Errorf("segments %d+%d changed the chain", c[0], c[1])
		}
	}
}

func TestExtendZeroOverTheLargestDiskIsQuick(t *testing.T) {
	prover := provers(t)[0]
	g := geometry(t, blockdiff.MaxDiskSize)
	begin := time.Now()
	prover.ExtendZero(g, prover.Start(g), 0, 1<<20)
	if took := time.Since(begin); took > 10*time.Second {
		t.Fatalf("a million segments took %v", took)
	}
}

// Every input of the proof changes the root.
func TestTheRootBinds(t *testing.T) {
	blake, sha := provers(t)[0], provers(t)[1]
	g := geometry(t, 32*mib)
	a, b := blake.Leaf([]byte{1}), blake.Leaf([]byte{2})
	names, roots := []string{"a", "b"}, []blockdiff.Hash{a, b}
	for sentence, pair := range map[string][2]blockdiff.Hash{
		"the disk's size":             {blake.Start(g), blake.Start(geometry(t, 32*mib-512))},
		"the algorithm":               {blake.Start(g), sha.Start(g)},
		"the order of segments":       {blake.Extend(blake.Extend(a, a), b), blake.Extend(blake.Extend(a, b), a)},
		"the place in the chain":      {blake.Extend(a, b), blake.Extend(b, a)},
		"the number of zero segments": {blake.ExtendZero(g, a, 0, 1), blake.ExtendZero(g, a, 0, 2)},
		"the order of leaves":         {blake.Segment(roots), blake.Segment([]blockdiff.Hash{b, a})},
		"the number of leaves":        {blake.Segment(roots), blake.Segment(roots[:1])},
		"the names of disks":          {blake.Combine(names, roots), blake.Combine([]string{"a", "c"}, roots)},
		"where a name ends":           {blake.Combine(names, roots), blake.Combine([]string{"ab", ""}, roots)},
		"the order of disks":          {blake.Combine(names, roots), blake.Combine(names, []blockdiff.Hash{b, a})},
		"the number of disks":         {blake.Combine(names, roots), blake.Combine(names[:1], roots[:1])},
	} {
		if pair[0] == pair[1] {
			t.Errorf("the root does not bind %s", sentence)
		}
	}
}

func TestMeasureSpeedIsPlausible(t *testing.T) {
	for _, prover := range provers(t) {
		if speed := blockdiff.MeasureSpeed(prover.Algorithm()); speed < 10<<20 || speed > 1<<40 {
			t.Errorf("%v: %d bytes/s", prover.Algorithm(), speed)
		}
	}
}

func TestHashText(t *testing.T) {
	hash := provers(t)[0].ZeroLeaf()
	text, err := json.Marshal(hash)
	if err != nil || string(text) != `"`+hash.String()+`"` {
		t.Fatalf("marshalled %s, error %v", text, err)
	}
	var back blockdiff.Hash
	if err := json.Unmarshal(text, &back); err != nil || back != hash || back.IsZero() {
		t.Fatalf("unmarshalled %v, error %v", back, err)
	}
	for sentence, text := range map[string]string{
		"nothing":               "",
		"one digit less":        strings.Repeat("0", 63),
		"one digit more":        strings.Repeat("0", 65),
		"a letter that is none": strings.Repeat("0", 63) + "g",
		"spaces around it":      " " + strings.Repeat("0", 62) + " ",
	} {
		t.Run("refuses "+sentence, func(t *testing.T) {
			changed := hash
			if err := changed.UnmarshalText([]byte(text)); !errors.Is(err, blockdiff.ErrHash) || changed != hash {
				t.Fatalf("error %v, hash %v", err, changed)
			}
		})
	}
}
