package blockdiff

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/zeebo/blake3"
)

// ErrAlgorithm is answered for a proof algorithm that this version does not have.
var ErrAlgorithm = errors.New("unknown proof algorithm")

// Algorithm is a 256-bit hash function for the proof. The numbers are those of the wire and part of every root.
type Algorithm uint8

// The algorithms.
const (
	BLAKE3 Algorithm = iota + 1
	SHA256
)

// String names the algorithm.
func (a Algorithm) String() string {
	switch a {
	case BLAKE3:
		return "blake3"
	case SHA256:
		return "sha256"
	default:
		return fmt.Sprintf("algorithm %d", uint8(a))
	}
}

// The labels keep the inputs of Start and Combine apart from every other input of the hash.
const (
	diskLabel    = "vmreplica disk proof 1\n"
	machineLabel = "vmreplica machine proof 1\n"
)

// Prover computes the hashes of a proof with one algorithm. It has no state and may be used concurrently.
//
// The shape of the tree follows from the Geometry alone: a leaf for each block, a segment for each group of
// leaves, a chain over the segments that begins with the Geometry. So two disks with equal roots are equal, or
// the hash function is broken.
type Prover struct {
	algorithm Algorithm
	zero      *zeroHashes
}

// zeroHashes are the hashes of content that is only zeros; segments is indexed by the number of blocks.
type zeroHashes struct {
	leaf     Hash
	segments [BlocksPerSegment + 1]Hash
}

var (
	zeroBLAKE3 = sync.OnceValue(func() *zeroHashes { return newZeroHashes(BLAKE3) })
	zeroSHA256 = sync.OnceValue(func() *zeroHashes { return newZeroHashes(SHA256) })
)

// NewProver makes a Prover; an unknown algorithm is an ErrAlgorithm.
func NewProver(algorithm Algorithm) (*Prover, error) {
	switch algorithm {
	case BLAKE3:
		return &Prover{algorithm: algorithm, zero: zeroBLAKE3()}, nil
	case SHA256:
		return &Prover{algorithm: algorithm, zero: zeroSHA256()}, nil
	default:
		return nil, fmt.Errorf("%w: %d", ErrAlgorithm, uint8(algorithm))
	}
}

// Algorithm is what the Prover was made with.
func (p *Prover) Algorithm() Algorithm { return p.algorithm }

// Leaf is the hash of a block of at most BlockSize bytes, padded with zeros to BlockSize. It does not look for
// blocks of zeros: for those ZeroLeaf is the same, and free.
func (p *Prover) Leaf(block []byte) Hash {
	if len(block) >= BlockSize {
		return p.algorithm.sum(block)
	}
	padded := takeBuffer(BlockSize)
	defer padded.release()
	clear(padded.bytes[copy(padded.bytes, block):])
	return p.algorithm.sum(padded.bytes)
}

// ZeroLeaf is the Leaf of a block of zeros.
func (p *Prover) ZeroLeaf() Hash { return p.zero.leaf }

// Segment is the hash of the leaves of one segment in order, 1 to BlocksPerSegment of them; the zero Hash, which
// no segment has, for any other number.
func (p *Prover) Segment(leaves []Hash) Hash {
	if len(leaves) < 1 || len(leaves) > BlocksPerSegment {
		return Hash{}
	}
	var joined [BlocksPerSegment * len(Hash{})]byte
	size := 0
	for i := range leaves {
		size += copy(joined[size:], leaves[i][:])
	}
	return p.algorithm.sum(joined[:size])
}

// ZeroSegment is the Segment of that many ZeroLeafs, 1 to BlocksPerSegment; the zero Hash for any other number.
func (p *Prover) ZeroSegment(blocks int64) Hash {
	if blocks < 1 || blocks > BlocksPerSegment {
		return Hash{}
	}
	return p.zero.segments[blocks]
}

// Start is the chain value before segment 0. It binds the algorithm, the disk's size, and the sizes of blocks and
// segments.
func (p *Prover) Start(g Geometry) Hash {
	input := append(make([]byte, 0, 64), diskLabel...)
	input = append(input, byte(p.algorithm))
	input = binary.LittleEndian.AppendUint64(input, uint64(g.Size()))
	input = binary.LittleEndian.AppendUint32(input, BlockSize)
	input = binary.LittleEndian.AppendUint32(input, SegmentSize)
	return p.algorithm.sum(input)
}

// Extend is the chain value after the next segment. After the disk's last segment it is the disk's root.
func (p *Prover) Extend(chain, segment Hash) Hash {
	var input [2 * len(chain)]byte
	copy(input[:], chain[:])
	copy(input[len(chain):], segment[:])
	return p.algorithm.sum(input[:])
}

// ExtendZero extends chain by count segments of zeros from segment first on; segments that the disk does not have
// are left out.
func (p *Prover) ExtendZero(g Geometry, chain Hash, first, count int64) Hash {
	last := g.Segments() - 1
	if first < 0 || first > last {
		return chain
	}
	for range min(count, last-first) {
		chain = p.Extend(chain, p.zero.segments[BlocksPerSegment])
	}
	if count > last-first {
		_, blocks := g.SegmentBlocks(last)
		chain = p.Extend(chain, p.ZeroSegment(blocks))
	}
	return chain
}

// Combine is one root over the roots of several disks, each bound to its name and place in the list. Both lists
// have the same length.
func (p *Prover) Combine(names []string, roots []Hash) Hash {
	input := append([]byte(nil), machineLabel...)
	input = append(input, byte(p.algorithm))
	input = binary.LittleEndian.AppendUint32(input, uint32(len(names)))
	input = binary.LittleEndian.AppendUint32(input, uint32(len(roots)))
	for _, name := range names {
		input = binary.LittleEndian.AppendUint32(input, uint32(len(name)))
		input = append(input, name...)
	}
	for i := range roots {
		input = append(input, roots[i][:]...)
	}
	return p.algorithm.sum(input)
}

// MeasureSpeed is how many bytes a second one core hashes into leaves, measured for about three milliseconds; 0
// for an unknown algorithm.
func MeasureSpeed(algorithm Algorithm) int64 {
	prover, err := NewProver(algorithm)
	if err != nil {
		return 0
	}
	const rounds = 5
	block := make([]byte, BlockSize)
	best := time.Duration(1<<63 - 1)
	for range rounds {
		const blocks = 16
		start := time.Now()
		for range blocks {
			prover.Leaf(block)
		}
		best = min(best, max(time.Since(start)/blocks, 1))
	}
	return int64(BlockSize * time.Second / best)
}

func newZeroHashes(algorithm Algorithm) *zeroHashes {
	hashes := &zeroHashes{leaf: algorithm.sum(make([]byte, BlockSize))}
	leaves := make([]byte, 0, BlocksPerSegment*len(hashes.leaf))
	for blocks := 1; blocks <= BlocksPerSegment; blocks++ {
		leaves = append(leaves, hashes.leaf[:]...)
		hashes.segments[blocks] = algorithm.sum(leaves)
	}
	return hashes
}

// sum is the hash of p by an algorithm that NewProver knows.
func (a Algorithm) sum(p []byte) Hash {
	if a == SHA256 {
		return sha256.Sum256(p)
	}
	return blake3.Sum256(p)
}
