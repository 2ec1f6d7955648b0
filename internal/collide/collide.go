// Package collide makes what a hostile guest would write: two blocks with different content and the same xxh64.
// It is for tests, which show with it that a digest is a filter and the proof a proof. No program imports it.
//
// How. xxh64 reads stripes of four lanes; a lane is acc = rotl(acc + word*prime2, 31) * prime1. Add a small a to
// word*prime2 in one stripe: as long as the sum does not carry out of the low 33 bits, the rotation makes it
// a<<31 and the multiplication a<<31*prime1. The same lane of the next stripe takes exactly that away again, and
// the state is what it was. The carry happens for one state in 2^33/a, so the pair collides under nearly every
// seed, and nothing needs to be known of it.
package collide

import (
	"encoding/binary"
	"math/rand/v2"
)

// BlockSize is the length of the blocks of a pair, in bytes.
const BlockSize = 64 << 10

const (
	stripe    = 32
	lane      = 8
	prime1    = 0x9e3779b185ebca87
	prime2    = 0xc2b2ae3d27d4eb4f
	rotation  = 31
	maxAddend = 16
)

// Pair is two blocks that differ in every 64 bytes, and so in every sub-block, but have the same xxh64 under any
// seed, whole and in every piece of a multiple of 64 bytes at a multiple of 64 bytes. Another seed makes another
// pair, the same seed the same.
func Pair(seed int64) (a, b []byte) {
	random := rand.NewChaCha8(seedBytes(seed))
	a = make([]byte, BlockSize)
	_, _ = random.Read(a)
	b = append([]byte(nil), a...)
	for offset := 0; offset < BlockSize; offset += 2 * stripe {
		for at := offset; at < offset+stripe; at += lane {
			shift(b, at, 1+random.Uint64()%maxAddend)
		}
	}
	return a, b
}

// shift adds addend to what the lane at a stripe's offset feeds into the state, and takes the effect away in the
// next stripe.
func shift(block []byte, at int, addend uint64) {
	inverse := inverseOf(prime2)
	add(block[at:], addend*inverse)
	add(block[at+stripe:], -(addend<<rotation)*uint64(prime1)*inverse)
}

func add(p []byte, n uint64) {
	binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)+n)
}

// inverseOf is n's inverse modulo 2^64; each of Newton's steps doubles the number of right bits, from 3.
func inverseOf(n uint64) uint64 {
	inverse := n
	for range 5 {
		inverse *= 2 - n*inverse
	}
	return inverse
}

func seedBytes(seed int64) (bytes [32]byte) {
	binary.LittleEndian.PutUint64(bytes[:], uint64(seed))
	return bytes
}
