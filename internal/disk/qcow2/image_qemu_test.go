package qcow2_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/durable"
)

// foreignSize is on no boundary but the sector's.
const foreignSize = 9<<20 + 1536

// foreignImages are the ways in which qemu-img makes an image: the options of `create`, and those of a `convert -c`
// afterwards.
var foreignImages = map[string]struct{ create, compress string }{
	"version 2":                   {create: "compat=0.10"},
	"version 2, deflate":          {create: "compat=0.10", compress: "compat=0.10"},
	"version 3":                   {create: "compat=1.1"},
	"clusters of 512 bytes":       {create: "cluster_size=512"},
	"clusters of 4 KiB":           {create: "cluster_size=4k"},
	"clusters of 2 MiB":           {create: "cluster_size=2M"},
	"extended L2":                 {create: "extended_l2=on"},
	"extended L2 of 16 KiB":       {create: "extended_l2=on,cluster_size=16k"},
	"extended L2 of 2 MiB":        {create: "extended_l2=on,cluster_size=2M"},
	"lazy refcounts":              {create: "lazy_refcounts=on"},
	"refcounts of 1 bit":          {create: "refcount_bits=1"},
	"refcounts of 2 bits":         {create: "refcount_bits=2"},
	"refcounts of 4 bits":         {create: "refcount_bits=4"},
	"refcounts of 8 bits":         {create: "refcount_bits=8"},
	"refcounts of 32 bits":        {create: "refcount_bits=32"},
	"refcounts of 64 bits":        {create: "refcount_bits=64,cluster_size=512"},
	"preallocated metadata":       {create: "preallocation=metadata"},
	"preallocated, falloc":        {create: "preallocation=falloc"},
	"preallocated, full":          {create: "preallocation=full"},
	"deflate":                     {create: "compat=1.1", compress: "compat=1.1"},
	"deflate of 512 bytes":        {create: "compat=1.1", compress: "cluster_size=512"},
	"deflate of 2 MiB":            {create: "compat=1.1", compress: "cluster_size=2M"},
	"deflate in extended L2":      {create: "compat=1.1", compress: "extended_l2=on"},
	"zstd":                        {create: "compat=1.1", compress: "compression_type=zstd"},
	"zstd of 4 KiB":               {create: "compat=1.1", compress: "compression_type=zstd,cluster_size=4k"},
	"zstd of 2 MiB":               {create: "compat=1.1", compress: "compression_type=zstd,cluster_size=2M"},
	"zstd with refcounts of 1bit": {create: "compat=1.1", compress: "compression_type=zstd,refcount_bits=1"},
}

// TestForeignImages reads what qemu-img makes, holds the extents against `qemu-img map`, writes into it, and has QEMU
// read and check what came of it.
func TestForeignImages(t *testing.T) {
	disktest.OneGoroutine(t)
	for name, options := range foreignImages {
		t.Run(name, func(t *testing.T) {
			f := newForeign(t, options.create)
			f.scribble(t, rand.New(rand.NewPCG(1, 1)))
			if options.compress != "" {
				f.compress(t, options.compress)
			}
			f.compare(t)
			f.change(t, 2)
		})
	}
}

// TestForeignSnapshots writes over clusters that internal snapshots share: the snapshots keep what they had.
func TestForeignSnapshots(t *testing.T) {
	disktest.OneGoroutine(t)
	for name, options := range foreignImages {
		if strings.Contains(name, "of 1") && strings.Contains(name, "bit") {
			continue // a refcount of one bit counts no snapshot
		}
		t.Run(name, func(t *testing.T) {
			f := newForeign(t, options.create)
			f.scribble(t, rand.New(rand.NewPCG(2, 1)))
			if options.compress != "" {
				f.compress(t, options.compress)
			}
			first := f.snapshot(t, "first")
			f.change(t, 3)
			second := f.snapshot(t, "second")
			f.compare(t)
			f.change(t, 4)
			f.holds(t, "first", first)
			f.holds(t, "second", second)
			f.run(t, "qemu-img", "snapshot", "-d", "first", f.path)
			f.change(t, 5)
			f.holds(t, "second", second)
		})
	}
}

// TestForeignBitmaps writes into an image with persistent bitmaps, which do not follow: QEMU is told.
func TestForeignBitmaps(t *testing.T) {
	f := newForeign(t, "compat=1.1")
	f.run(t, "qemu-img", "bitmap", "--add", f.path, "dirty")
	f.scribble(t, rand.New(rand.NewPCG(3, 1)))
	f.compare(t)
	f.clean(t)
	i := openImage(t, f.path, durable.ReadWrite)
	f.write(t, i, 0, 4096)
	must(t, i.Close())
	f.equal(t)
	if info := f.run(t, "qemu-img", "info", "-f", "qcow2", f.path); strings.Contains(info, "bitmaps:") {
		t.Errorf("the bitmap still counts as consistent:\n%s", info)
	}
}

// TestForeignBacking reads the layer alone: what it leaves to its backing file is absent.
func TestForeignBacking(t *testing.T) {
	for name, options := range map[string]string{"plain": "compat=1.1", "extended L2": "extended_l2=on", "version 2": "compat=0.10"} {
		for _, below := range []int64{foreignSize - 2<<20, foreignSize + 2<<20} {
			t.Run(fmt.Sprintf("%s over %d bytes", name, below), func(t *testing.T) {
				f := newForeign(t, "compat=1.1")
				base := f.path
				f.run(t, "qemu-img", "resize", "-q", "--shrink", "-f", "qcow2", base, fmt.Sprint(below))
				f.path = filepath.Join(f.directory, "layer")
				f.run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", options, "-b", "base", "-F", "qcow2", f.path,
					fmt.Sprint(foreignSize))
				f.run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 7 0 64k", "-c", "write -P 8 1000k 3000k",
					"-c", "write -z 2M 512k", "-c", "write -P 9 8999k 8k", f.path)
				i := openImage(t, f.path, durable.ReadOnly)
				if name, format, ok := i.Backing(); name != "base" || format != "qcow2" || !ok {
					t.Errorf("the backing file is %q, %q, %t", name, format, ok)
				}
				f.compareMap(t, i)
				f.absent(t, i)
				file, err := os.OpenFile(f.path, os.O_RDWR, 0)
				must(t, err)
				defer file.Close()
				if _, err := qcow2.OpenImage(durable.NewFile(file), durable.ReadWrite); err == nil {
					t.Error("an image with a backing file was opened for writing")
				}
			})
		}
	}
}

// TestDamagedCompression reads and partly writes a cluster that does not decompress: both fail, and nothing is lost.
func TestDamagedCompression(t *testing.T) {
	f := newForeign(t, "compat=1.1")
	f.run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 5 0 64k", f.path)
	f.compress(t, "compat=1.1")
	content, err := os.ReadFile(f.path)
	must(t, err)
	table := binary.BigEndian.Uint64(content[binary.BigEndian.Uint64(content[40:]):]) & (1<<56 - 1)
	packed := binary.BigEndian.Uint64(content[table:]) & (1<<54 - 1)
	copy(content[packed:], bytes.Repeat([]byte{0xff}, 512))
	must(t, os.WriteFile(f.path, content, 0o600))
	i := openImage(t, f.path, durable.ReadWrite)
	if _, err := i.ReadAt(make([]byte, 512), 0); err == nil {
		t.Error("a damaged cluster is read")
	}
	if _, err := i.WriteAt(make([]byte, 512), 512); err == nil {
		t.Error("a part of a damaged cluster is written, and the rest is lost")
	}
	must(t, i.Close())
	f.clean(t)
}
