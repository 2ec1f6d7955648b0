package nbd

import (
	"math/bits"
	"sync"
)

// Buffers have a power of two bytes, from 4 KiB to MaxPayload.
const (
	minBufferBits = 12
	maxBufferBits = 25
)

// buffers is a pool for each size.
var buffers [maxBufferBits - minBufferBits + 1]sync.Pool

// buffer is memory for a payload. Its owner is who holds it, and gives it back once.
type buffer struct{ data []byte }

// bufferSize is the size of the buffer that n bytes get; n is at most MaxPayload.
func bufferSize(n int64) int64 {
	if n == 0 {
		return 0
	}
	return 1 << bufferBits(n)
}

func bufferBits(n int64) int { return max(minBufferBits, bits.Len64(uint64(n-1))) }

// getBuffer is a buffer of at least n bytes, 1 to MaxPayload; what they hold is left over from others.
func getBuffer(n int64) *buffer {
	size := bufferBits(n)
	if b, ok := buffers[size-minBufferBits].Get().(*buffer); ok {
		return b
	}
	return &buffer{data: make([]byte, 1<<size)}
}

func (b *buffer) putBack() { buffers[bufferBits(int64(len(b.data)))-minBufferBits].Put(b) }
