package collide_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/cespare/xxhash/v2"

	"vmreplica/internal/collide"
)

func TestPairCollidesUnderEverySeed(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for seed := range int64(50) {
		a, b := collide.Pair(seed)
		for _, piece := range []int{64, 512, 4 << 10, 64 << 10} {
			for at := 0; at < len(a); at += piece {
				left, right := a[at:at+piece], b[at:at+piece]
				if bytes.Equal(left, right) {
					t.Fatalf("pair %d: the %d bytes at %d are equal", seed, piece, at)
				}
				if xxhash.Sum64(left) != xxhash.Sum64(right) {
					t.Fatalf("pair %d: the %d bytes at %d do not collide", seed, piece, at)
				}
			}
		}
		for range 20 {
			if key := random.Uint64(); digest(a, key) != digest(b, key) {
				t.Fatalf("pair %d does not collide under seed %#x", seed, key)
			}
		}
	}
}

func TestPairFollowsItsSeed(t *testing.T) {
	a, b := collide.Pair(7)
	again, _ := collide.Pair(7)
	other, _ := collide.Pair(8)
	if !bytes.Equal(a, again) {
		t.Error("the same seed made another pair")
	}
	if bytes.Equal(a, other) {
		t.Error("another seed made the same pair")
	}
	if len(a) != collide.BlockSize || len(b) != collide.BlockSize {
		t.Errorf("blocks of %d and %d bytes", len(a), len(b))
	}
}

func digest(p []byte, seed uint64) uint64 {
	hash := xxhash.NewWithSeed(seed)
	_, _ = hash.Write(p)
	return hash.Sum64()
}
