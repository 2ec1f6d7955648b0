package main

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
)

const subBlock = int(4 * kib)

// rewriteShared rewrites count blocks of 4 KiB, anywhere in an image, with what other blocks of it hold, turned by
// some bytes: as compressible as the image, and nowhere in it. It answers the new content in the order of the disk.
func rewriteShared(path string, size int64, count int, seed uint64) ([]byte, error) {
	random := rand.New(rand.NewPCG(seed, uint64(size)))
	return rewriteAt(path, somewhere(random, size/int64(subBlock), count), func(image *os.File, into []byte) error {
		return takeElsewhere(image, size, random, into)
	})
}

// rewriteRandom rewrites count blocks of 4 KiB, anywhere in the first size bytes of an image, with what does not
// compress.
func rewriteRandom(path string, size int64, count int, seed uint64) ([]byte, error) {
	random := rand.New(rand.NewPCG(seed, uint64(size)))
	return rewriteAt(path, somewhere(random, size/int64(subBlock), count), noise(seed))
}

// rewriteAt fills the named blocks and waits for the disk, so that nobody who is timed does.
func rewriteAt(path string, blocks []int64, fill func(image *os.File, into []byte) error) ([]byte, error) {
	image, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	content := make([]byte, len(blocks)*subBlock)
	old := make([]byte, subBlock)
	for i, block := range blocks {
		part := content[i*subBlock:][:subBlock]
		if err := fill(image, part); err != nil {
			return nil, err
		}
		if _, err := image.ReadAt(old, block*int64(subBlock)); err != nil {
			return nil, err
		}
		if bytes.Equal(old, part) {
			part[0] ^= 1
		}
		if _, err := image.WriteAt(part, block*int64(subBlock)); err != nil {
			return nil, err
		}
	}
	return content, errors.Join(image.Sync(), image.Close())
}

// somewhere is count different numbers below total, in order.
func somewhere(random *rand.Rand, total int64, count int) []int64 {
	chosen := map[int64]bool{}
	for len(chosen) < count {
		chosen[random.Int64N(total)] = true
	}
	blocks := make([]int64, 0, count)
	for block := range chosen {
		blocks = append(blocks, block)
	}
	slices.Sort(blocks)
	return blocks
}

// takeElsewhere reads a block that is not zero and turns it.
func takeElsewhere(image *os.File, size int64, random *rand.Rand, into []byte) error {
	turned := make([]byte, subBlock)
	for {
		if _, err := image.ReadAt(turned, random.Int64N(size/int64(subBlock))*int64(subBlock)); err != nil {
			return err
		}
		if slices.ContainsFunc(turned, func(b byte) bool { return b != 0 }) {
			break
		}
	}
	by := 1 + random.IntN(subBlock-1)
	copy(into, turned[by:])
	copy(into[subBlock-by:], turned[:by])
	return nil
}

// noise fills blocks with what does not compress.
func noise(seed uint64) func(*os.File, []byte) error {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	source := rand.NewChaCha8(key)
	return func(_ *os.File, into []byte) error {
		_, err := source.Read(into)
		return err
	}
}

// scatter makes an image of size bytes that holds data bytes of noise in pieces of 1 MiB at equal distances, the
// first at 0.
func scatter(path string, size, data int64, seed uint64) error {
	if err := makeSparse(path, size); err != nil {
		return err
	}
	image, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer image.Close()
	fill, piece := noise(seed), make([]byte, mib)
	pieces := data / mib
	distance := size / pieces / mib * mib
	for i := range pieces {
		if err := fill(nil, piece); err != nil {
			return err
		}
		if _, err := image.WriteAt(piece, i*distance); err != nil {
			return err
		}
	}
	return errors.Join(image.Sync(), image.Close())
}
