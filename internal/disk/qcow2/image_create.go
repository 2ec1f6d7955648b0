package qcow2

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

// ImageOptions describe a new image.
type ImageOptions struct {
	// SizeBytes is the disk's size, a multiple of 512 up to 64 TiB.
	SizeBytes int64
	// ClusterBytes is a power of two, 512 bytes to 2 MiB; 0 stands for 64 KiB. Clusters of 512 bytes serve disks up
	// to 128 GiB, of 4 KiB up to 8 TiB.
	ClusterBytes int64
}

const defaultClusterBytes = 64 << 10

// layout is where CreateImage puts the tables, all of them contiguous, in clusters: the header, the refcount table,
// its blocks, the L1 table.
type layout struct{ counts, blocks, l1 int64 }

func (l layout) end() int64 { return 1 + l.counts + l.blocks + l.l1 }

// CreateImage makes file, which must be empty, a version 3 image without a backing file that reads as zeros. It is
// durable when CreateImage returns and the caller has synced the directory. A crash before that leaves a file that
// OpenImage refuses, or the whole image. On an error the file stays open and the caller's.
func CreateImage(file durable.File, o ImageOptions) (*Image, error) {
	if o.ClusterBytes == 0 {
		o.ClusterBytes = defaultClusterBytes
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	present, err := file.Size()
	if err != nil {
		return nil, fmt.Errorf("create qcow2 image: %w", err)
	}
	if present != 0 {
		return nil, failure.New(failure.Exists, failure.ReasonAlreadyExists,
			"create qcow2 image: the file already holds %d bytes", present)
	}
	g := newGeometry(version, uint(bits.TrailingZeros64(uint64(o.ClusterBytes))), refcountOrder, false)
	if err := formatImage(file, &g, o.SizeBytes); err != nil {
		return nil, fmt.Errorf("create qcow2 image: %w", err)
	}
	return OpenImage(file, durable.ReadWrite)
}

func (o *ImageOptions) check() error {
	size, cluster := o.SizeBytes, o.ClusterBytes
	invalid := func(format string, args ...any) error {
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "create qcow2 image: "+format, args...)
	}
	if err := disk.CheckSize(size, sectorSize); err != nil {
		return invalid("%w", err)
	}
	if cluster < 1<<minClusterBits || cluster > 1<<maxClusterBits || cluster&(cluster-1) != 0 {
		return invalid("a cluster of %d bytes is no power of two from 512 bytes to 2 MiB", cluster)
	}
	if most := maxL1Bytes / 8 * cluster * (cluster / 8); size > most {
		return invalid("clusters of %d bytes serve disks of %d bytes at most", cluster, most)
	}
	return nil
}

// plan finds a layout whose blocks count all of it.
func (g *geometry) plan(size int64) layout {
	l := layout{counts: 1, blocks: 1, l1: g.clusters(g.tablesOf(size) * 8)}
	for {
		blocks := (l.end() + g.perBlock - 1) / g.perBlock
		counts := g.clusters(blocks * 8)
		if blocks == l.blocks && counts == l.counts {
			return l
		}
		l.blocks, l.counts = blocks, counts
	}
}

// formatImage writes the tables of an empty image, syncs, and then writes the header that makes it one.
func formatImage(file durable.File, g *geometry, size int64) error {
	l := g.plan(size)
	if err := file.Truncate(l.end() << g.bits); err != nil {
		return err
	}
	firstBlock := (1 + l.counts) << g.bits
	for at := int64(0); at < l.end(); {
		n := min(l.end()-at, gatherBytes/2)
		if _, err := file.WriteAt(countsOfOne(n), firstBlock+at*2); err != nil {
			return err
		}
		at += n
	}
	var pointers []byte
	for n := range l.blocks {
		pointers = binary.BigEndian.AppendUint64(pointers, uint64(firstBlock+n<<g.bits))
	}
	if _, err := file.WriteAt(pointers, g.cluster); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if _, err := file.WriteAt(g.newHeader(size, l), 0); err != nil {
		return err
	}
	return file.Sync()
}

// newHeader is the first sector of a new image.
func (g *geometry) newHeader(size int64, l layout) []byte {
	p := make([]byte, sectorSize)
	order := binary.BigEndian
	order.PutUint32(p[0:], magic)
	order.PutUint32(p[4:], g.version)
	order.PutUint32(p[20:], uint32(g.bits))
	order.PutUint64(p[24:], uint64(size))
	order.PutUint32(p[36:], uint32(g.tablesOf(size)))
	order.PutUint64(p[40:], uint64(g.cluster*(1+l.counts+l.blocks)))
	order.PutUint64(p[fieldCounts:], uint64(g.cluster))
	order.PutUint32(p[56:], uint32(l.counts))
	order.PutUint32(p[96:], uint32(g.order))
	order.PutUint32(p[100:], headerLength)
	return p
}
