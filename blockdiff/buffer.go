package blockdiff

import "sync"

// bufferStep is the difference in capacity between the buffers of neighbouring pools.
const bufferStep = 512 << 10

// pools hold buffers of up to MaxFramePlaintext bytes, by capacity in steps of bufferStep.
var pools [MaxFramePlaintext / bufferStep]sync.Pool

// buffer is a pooled buffer; who took it owns it until release.
type buffer struct {
	bytes []byte
}

// takeBuffer is a buffer of n bytes with any content.
func takeBuffer(n int) *buffer {
	if n > MaxFramePlaintext {
		return &buffer{bytes: make([]byte, n)}
	}
	pool := bufferPool(n)
	taken, ok := pool.Get().(*buffer)
	if !ok {
		taken = &buffer{bytes: make([]byte, ceilDiv(int64(max(n, 1)), bufferStep)*bufferStep)}
	}
	taken.bytes = taken.bytes[:n]
	return taken
}

// release gives the buffer back; nobody may use its bytes afterwards.
func (b *buffer) release() {
	if n := cap(b.bytes); n <= MaxFramePlaintext {
		bufferPool(n).Put(b)
	}
}

func bufferPool(n int) *sync.Pool { return &pools[max(n-1, 0)/bufferStep] }
