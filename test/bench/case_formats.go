package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/format"
	"vmreplica/internal/durable"
	"vmreplica/internal/replication"
)

// What a format's reading and writing may lose against raw.
const (
	readShare  = 0.9
	writeShare = 0.6
)

// drivers are QEMU's names of the formats.
var drivers = map[replication.Format]string{
	replication.FormatRaw: "raw", replication.FormatVHD: "vpc", replication.FormatVHDX: "vhdx", replication.FormatQCOW2: "qcow2",
}

// formatData is how many bytes of data the images of these cases hold.
func (b *bench) formatData() int64 { return b.size / 4 }

// runRead measures reading one disk from front to back through each format against the same disk as raw, all of them
// made by qemu-img and in the page cache.
func runRead(ctx context.Context, b *bench) error {
	dir := filepath.Join(b.dir, "formats")
	defer os.RemoveAll(dir)
	paths, yardsticks, err := b.formatImages(ctx, dir)
	if err != nil {
		return err
	}
	times := map[replication.Format][]time.Duration{}
	var measures []func() error
	for _, f := range replication.Formats {
		measures = append(measures, func() error {
			took, err := readThrough(paths[f], f)
			times[f] = append(times[f], took)
			return err
		})
	}
	for i := range b.rounds + 1 {
		if i == 1 {
			clear(times) // the first round brought the files into the page cache
		}
		if err := inTurn(i, measures, func() error { return ctx.Err() }); err != nil {
			return err
		}
	}
	plain := median(times[replication.FormatRaw])
	for _, f := range replication.Formats[1:] {
		took := median(times[f])
		b.table.atLeast(fmt.Sprintf("reading %s, raw ÷ %s", f, f), plain.Seconds()/took.Seconds(), readShare, "%.2f")
		b.table.note("7: %s of %s read in %s, raw in %s; qemu-img convert to raw took %s.",
			bytesText(b.formatData()), f, seconds(took), seconds(plain), seconds(yardsticks[f]))
	}
	return nil
}

// formatImages makes one disk in every format, and says how long qemu-img took to make raw of each.
func (b *bench) formatImages(ctx context.Context, dir string) (map[replication.Format]string, map[replication.Format]time.Duration, error) {
	paths, took := map[replication.Format]string{}, map[replication.Format]time.Duration{}
	paths[replication.FormatRaw] = filepath.Join(dir, "disk.raw")
	if err := scatter(paths[replication.FormatRaw], b.formatData(), b.formatData(), 1); err != nil {
		return nil, nil, err
	}
	for _, f := range replication.Formats[1:] {
		paths[f] = filepath.Join(dir, "disk."+string(f))
		convert := []string{"qemu-img", "convert", "-f", "raw", "-O", drivers[f], paths[replication.FormatRaw], paths[f]}
		if f == replication.FormatVHD {
			convert = append(convert[:6:6], append([]string{"-o", "force_size=on"}, convert[6:]...)...)
		}
		back := filepath.Join(dir, "back")
		if err := every(ctx, convert); err != nil {
			return nil, nil, err
		}
		began := time.Now()
		if err := every(ctx, []string{"qemu-img", "convert", "-f", drivers[f], "-O", "raw", paths[f], back}); err != nil {
			return nil, nil, err
		}
		took[f] = time.Since(began)
		if err := compare(ctx, paths[replication.FormatRaw], back); err != nil {
			return nil, nil, err
		}
		if err := os.Remove(back); err != nil {
			return nil, nil, err
		}
	}
	return paths, took, nil
}

// readThrough reads a disk once in pieces of 1 MiB.
func readThrough(path string, f replication.Format) (time.Duration, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	part, err := format.OpenPart(durable.NewFile(file), f, format.Options{Path: path})
	if err != nil {
		return 0, err
	}
	defer part.Close()
	piece := make([]byte, mib)
	began := time.Now()
	for off := int64(0); off < part.Size(); off += mib {
		if _, err := part.ReadAt(piece[:min(mib, part.Size()-off)], off); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

// runWrite measures writing the same extents into each differencing disk and into a raw file, synced once at the end.
func runWrite(ctx context.Context, b *bench) error {
	dir := filepath.Join(b.dir, "layers")
	defer os.RemoveAll(dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	extents := b.receivedExtents()
	times := map[replication.Format][]time.Duration{}
	var measures []func() error
	for _, f := range replication.Formats {
		measures = append(measures, func() error {
			took, err := writeThrough(filepath.Join(dir, "layer"), f, 4*b.formatData(), extents)
			times[f] = append(times[f], took)
			return err
		})
	}
	for i := range b.rounds {
		if err := inTurn(i, measures, func() error { return ctx.Err() }); err != nil {
			return err
		}
	}
	plain := median(times[replication.FormatRaw])
	for _, f := range replication.Formats[1:] {
		took := median(times[f])
		b.table.atLeast(fmt.Sprintf("writing into a %s layer, raw ÷ layer", f), plain.Seconds()/took.Seconds(), writeShare, "%.2f")
		b.table.note("8: %d extents of %s in all into a %s layer in %s, into raw in %s.", len(extents), bytesText(total(extents)), f,
			seconds(took), seconds(plain))
	}
	return nil
}

// receivedExtents are what a resync receives: runs of 4 KiB to 1 MiB in ascending order, a quarter of a disk.
func (b *bench) receivedExtents() []extent {
	random := rand.New(rand.NewPCG(8, 8))
	var extents []extent
	for off := int64(0); off < 4*b.formatData()-8*mib; {
		n := min(4*kib<<random.IntN(9), mib)
		extents = append(extents, extent{off, off + n})
		off += 4*n + random.Int64N(8)*4*kib
	}
	return extents
}

func total(extents []extent) int64 {
	sum := int64(0)
	for _, e := range extents {
		sum += e.end - e.start
	}
	return sum
}

// writeThrough makes an empty disk of size bytes, a layer where the format has them, and writes extents of noise.
func writeThrough(path string, f replication.Format, size int64, extents []extent) (time.Duration, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	defer os.Remove(path)
	target, err := newTarget(durable.NewFile(file), f, format.New{Path: path, SizeBytes: size})
	if err != nil {
		return 0, err
	}
	defer target.Close()
	piece := make([]byte, mib)
	if err := noise(2)(nil, piece); err != nil {
		return 0, err
	}
	began := time.Now()
	for _, e := range extents {
		if _, err := target.WriteAt(piece[:e.end-e.start], e.start); err != nil {
			return 0, err
		}
	}
	err = target.Flush()
	return time.Since(began), err
}

func newTarget(file durable.File, f replication.Format, n format.New) (disk.Disk, error) {
	if f == replication.FormatRaw {
		return format.Create(file, f, n)
	}
	return format.CreateLayer(file, f, n)
}
