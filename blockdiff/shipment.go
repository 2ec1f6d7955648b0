package blockdiff

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"github.com/zeebo/blake3"
)

// shipmentLabel keeps the inputs of StartShipment apart from every other input of the hash.
const shipmentLabel = "vmreplica shipment proof 1\n"

// StartShipment is the root of a shipment before its first frame. A shipment is frames of one disk that are not of a
// pass: their content is what was marked, and nothing is compared. Each frame extends the root by its FrameHash, so
// equal roots mean that the same extents with the same content were applied in the same order.
func (p *Prover) StartShipment(g Geometry) Hash {
	input := append(make([]byte, 0, 64), shipmentLabel...)
	input = append(input, byte(p.algorithm))
	input = binary.LittleEndian.AppendUint64(input, uint64(g.Size()))
	return p.algorithm.sum(input)
}

// FrameHash hashes one frame of a shipment: its coded extents, preceded by their length as 8 bytes little-endian, and
// the plaintext of its data extents in order.
type FrameHash struct{ running hash.Hash }

// NewFrameHash begins the hash of a frame with these coded extents.
func (p *Prover) NewFrameHash(extents []byte) *FrameHash {
	var running hash.Hash = blake3.New()
	if p.algorithm == SHA256 {
		running = sha256.New()
	}
	running.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(extents))))
	running.Write(extents)
	return &FrameHash{running}
}

// Add adds the plaintext of the next data extents.
func (h *FrameHash) Add(plaintext []byte) { h.running.Write(plaintext) }

// Sum is the hash of what was added so far.
func (h *FrameHash) Sum() Hash { return Hash(h.running.Sum(nil)) }
