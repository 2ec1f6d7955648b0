package blockdiff

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrRun is answered for a run, or packed digests, that cannot be what a correct peer sends.
var ErrRun = errors.New("invalid digest run")

// RunKind says how a run describes its blocks. The numbers are those of the wire.
type RunKind uint8

// The kinds of runs.
const (
	// RunDigests has one digest for each block.
	RunDigests RunKind = iota + 1
	// RunZero blocks are allocated and read as zeros.
	RunZero
	// RunHole blocks are not allocated and read as zeros.
	RunHole
)

// String names the kind.
func (k RunKind) String() string {
	switch k {
	case RunDigests:
		return "digests"
	case RunZero:
		return "zero"
	case RunHole:
		return "hole"
	default:
		return fmt.Sprintf("run kind %d", uint8(k))
	}
}

// Run describes the blocks First to First+Count-1. Digests has one digest for each of them in a RunDigests, and
// is empty otherwise.
type Run struct {
	Kind         RunKind
	First, Count int64
	Digests      []uint64
}

// CheckRun says whether run is the one that may follow: it begins at block next, has at least one block, stays
// inside the disk, and has as many digests as its kind asks for. Errors wrap ErrRun.
func CheckRun(g Geometry, next int64, run Run) error {
	var digests int64
	switch run.Kind {
	case RunDigests:
		digests = run.Count
	case RunZero, RunHole:
	default:
		return fmt.Errorf("%w: unknown kind %d", ErrRun, uint8(run.Kind))
	}
	switch {
	case run.First != next:
		return fmt.Errorf("%w: begins at block %d, expected %d", ErrRun, run.First, next)
	case run.First < 0:
		return fmt.Errorf("%w: begins at block %d", ErrRun, run.First)
	case run.Count <= 0:
		return fmt.Errorf("%w: has %d blocks", ErrRun, run.Count)
	case run.Count > g.Blocks()-run.First:
		return fmt.Errorf("%w: %d blocks from block %d leave a disk of %d blocks",
			ErrRun, run.Count, run.First, g.Blocks())
	case int64(len(run.Digests)) != digests:
		return fmt.Errorf("%w: %d digests for %d blocks of kind %v", ErrRun, len(run.Digests), run.Count, run.Kind)
	}
	return nil
}

// packedDigestSize is what one digest takes on the wire.
const packedDigestSize = 8

// PackDigests appends digests to dst, each as 8 bytes little-endian.
func PackDigests(dst []byte, digests []uint64) []byte {
	for _, digest := range digests {
		dst = binary.LittleEndian.AppendUint64(dst, digest)
	}
	return dst
}

// UnpackDigests is the inverse of PackDigests; a length that is no multiple of 8 is an ErrRun.
func UnpackDigests(src []byte) ([]uint64, error) {
	if len(src)%packedDigestSize != 0 {
		return nil, fmt.Errorf("%w: %d bytes are no whole number of digests", ErrRun, len(src))
	}
	digests := make([]uint64, len(src)/packedDigestSize)
	for i := range digests {
		digests[i] = binary.LittleEndian.Uint64(src[i*packedDigestSize:])
	}
	return digests, nil
}
