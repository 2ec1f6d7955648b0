package e2e_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	mib     = 1 << 20
	block   = 64 << 10
	segment = 16 * mib
)

// fill writes an image of size bytes: random data, text that compresses, zeros and holes, a quarter each.
func fill(t *testing.T, path string, size int64, seed uint64) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	random := random(seed)
	piece := make([]byte, 256<<10)
	for at := int64(0); at < size; at += int64(len(piece)) {
		piece := piece[:min(int64(len(piece)), size-at)]
		switch random.Uint64() % 4 {
		case 0:
			continue
		case 1:
			clear(piece)
		case 2:
			copy(piece, bytes.Repeat([]byte("it was a dark and stormy night; "), len(piece)/32+1))
		default:
			scramble(piece, random)
		}
		write(t, file, at, piece)
	}
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
}

// scrambled writes an image of random bytes alone, which nothing makes smaller.
func scrambled(t *testing.T, path string, size int64, seed uint64) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	random := random(seed)
	piece := make([]byte, mib)
	for at := int64(0); at < size; at += int64(len(piece)) {
		piece := piece[:min(int64(len(piece)), size-at)]
		scramble(piece, random)
		write(t, file, at, piece)
	}
}

// rewrite puts random bytes into about one of n 64 KiB blocks and answers how many it changed.
func rewrite(t *testing.T, path string, n int, seed uint64) (blocks int64) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	random := random(seed)
	piece := make([]byte, block)
	for at := int64(0); at+block <= size; at += block {
		if random.IntN(n) == 0 {
			scramble(piece, random)
			write(t, file, at, piece)
			blocks++
		}
	}
	return blocks
}

func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 42)) }

func scramble(piece []byte, random *rand.Rand) {
	var key [32]byte
	for i := range key {
		key[i] = byte(random.Uint64())
	}
	_, _ = rand.NewChaCha8(key).Read(piece)
}

func write(t *testing.T, file *os.File, at int64, piece []byte) {
	t.Helper()
	if _, err := file.WriteAt(piece, at); err != nil {
		t.Fatal(err)
	}
}

// copyFile copies with cp, holes and all.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	mustMake(t, filepath.Dir(to))
	tool(t, "cp", "--sparse=always", from, to)
}

// equal is cmp's opinion.
func equal(t *testing.T, a, b string) {
	t.Helper()
	if output, err := exec.Command("cmp", a, b).CombinedOutput(); err != nil {
		t.Fatalf("cmp: %v: %s", err, output)
	}
}

// tool runs a program that must succeed and answers what it writes.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	output, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, output)
	}
	return strings.TrimSpace(string(output))
}

// image is the VM's disk on the primary, base where the replica keeps it.
func (p *pair) image() string { return filepath.Join(p.images, "root.img") }
func (p *pair) base() string  { return filepath.Join(p.storage, primaryName, vm, "root.img") }

// enabled authorizes the primary and enables the VM with its image, whose resyncs a test starts, at any time of the day; more
// are arguments of enable.
func (p *pair) enabled(more ...string) {
	p.t.Helper()
	p.replica.do("authorize", primaryName)
	p.primary.do(append([]string{"enable", vm, "--disk", p.image(), "--replica", p.reached, "--auto-resync", "off"}, more...)...)
}

// inStep makes an image of size bytes and the first copy of it.
func (p *pair) inStep(size int64, seed uint64) {
	p.t.Helper()
	fill(p.t, p.image(), size, seed)
	p.enabled()
	p.primary.do("start-initial", vm, "--wait")
	equal(p.t, p.image(), p.base())
}

// limit sets what the primary may send; none is no limit.
func (p *pair) limit(rate string) {
	p.t.Helper()
	p.primary.do("agent", "set", "--bandwidth-limit", rate)
}
