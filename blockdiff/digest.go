package blockdiff

import (
	"bytes"
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// zeros is a page to compare with and to pad from; nobody writes to it.
var zeros [SubBlockSize]byte

// Digest is the xxh64, seed 0, of a block of at most BlockSize bytes padded with zeros to BlockSize. It is a
// filter and not a proof.
func Digest(block []byte) uint64 {
	return paddedDigest(block, BlockSize)
}

// IsZero says whether p holds only zeros; an empty p does.
func IsZero(p []byte) bool {
	if len(p) >= 8 && binary.NativeEndian.Uint64(p) != 0 {
		return false
	}
	for len(p) > len(zeros) {
		if !bytes.Equal(p[:len(zeros)], zeros[:]) {
			return false
		}
		p = p[len(zeros):]
	}
	return bytes.Equal(p, zeros[:len(p)])
}

// paddedDigest is the xxh64 of p followed by zeros up to size.
func paddedDigest(p []byte, size int) uint64 {
	if len(p) >= size {
		return xxhash.Sum64(p)
	}
	var digest xxhash.Digest
	digest.Reset()
	_, _ = digest.Write(p)
	for missing := size - len(p); missing > 0; missing -= len(zeros) {
		_, _ = digest.Write(zeros[:min(missing, len(zeros))])
	}
	return digest.Sum64()
}
