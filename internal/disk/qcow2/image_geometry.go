package qcow2

import "vmreplica/internal/disk"

// The bounds of what is opened. They are QEMU's own: an image beyond them opens nowhere.
const (
	minClusterBits = 9
	maxClusterBits = 21
	maxL1Bytes     = 32 << 20
	maxCountsBytes = 8 << 20
	maxOrder       = 6
	// minExtendedBits is the smallest cluster that divides into subclusters of 512 bytes.
	minExtendedBits = 14
)

const (
	flagZero = uint64(1)
	// maskHost is where a table entry has the offset in the file, whatever the size of a cluster.
	maskHost = uint64(1)<<56 - 1<<9
)

// geometry is what follows from a header for the sizes of things, all in bytes but the numbers of entries.
type geometry struct {
	version  uint32
	extended bool
	bits     uint  // a cluster has 1<<bits bytes
	order    uint  // a refcount has 1<<order bits
	cluster  int64 // a cluster
	entry    int64 // an L2 entry
	perTable int64 // L2 entries in a table
	span     int64 // what a table covers of the disk
	sub      int64 // a subcluster; a cluster where entries are not extended
	page     int64 // what is cached of a table or refcount block: 4 KiB, or a smaller cluster
	perBlock int64 // refcounts in a block
}

func newGeometry(version uint32, bits, order uint, extended bool) geometry {
	g := geometry{version: version, extended: extended, bits: bits, order: order, cluster: 1 << bits, entry: 8}
	g.sub = g.cluster
	if extended {
		g.entry, g.sub = 16, g.cluster/subclusters
	}
	g.perTable = g.cluster / g.entry
	g.span = g.perTable * g.cluster
	g.page = min(sliceSize, g.cluster)
	g.perBlock = g.cluster * 8 >> order
	return g
}

// tablesOf is the number of L2 tables that a disk of that size can have.
func (g *geometry) tablesOf(size int64) int64 { return (size + g.span - 1) / g.span }

// clusters is how many clusters n bytes take.
func (g *geometry) clusters(n int64) int64 { return (n + g.cluster - 1) >> g.bits }

// piece is an extent and where its content lies: host in the file, or the compressed cluster's descriptor. Kind
// is Absent where the image has nothing, with or without a backing file.
type piece struct {
	disk.Extent
	host       int64
	compressed uint64
}

// join makes p cover next too when one read gives both.
func (p *piece) join(next piece) bool {
	if p.Kind != next.Kind || p.compressed != 0 || next.compressed != 0 || p.End() != next.Offset {
		return false
	}
	if p.Kind == disk.Data && p.host+p.Length != next.host {
		return false
	}
	p.Length += next.Length
	return true
}

// piece is what e says of at, and as far after it as that holds in its cluster.
func (g *geometry) piece(e entry, at int64) (piece, error) {
	inside := at & (g.cluster - 1)
	p := piece{Extent: disk.Extent{Offset: at, Length: g.cluster - inside}}
	if e.descriptor&flagCompressed != 0 {
		p.Kind, p.compressed = disk.Data, e.descriptor
		return p, nil
	}
	host := int64(e.descriptor & maskHost)
	if host&(g.cluster-1) != 0 {
		return p, damaged("the cluster at %d of the disk is placed at %d of the file", at-inside, host)
	}
	p.Kind = g.kind(e, host)
	if g.extended {
		if e.data()&e.zero() != 0 {
			return p, damaged("a subcluster of the cluster at %d of the disk is both data and zeros", at-inside)
		}
		i := int(inside / g.sub)
		kind, count := e.run(i)
		p.Kind, p.Length = kind, int64(i+count)*g.sub-inside
	}
	switch {
	case p.Kind == disk.Data && host == 0:
		return p, damaged("the cluster at %d of the disk is data without a place in the file", at-inside)
	case p.Kind == disk.Data:
		p.host = host + inside
	case p.Kind == disk.Zero && host == 0:
		p.Kind = disk.Unmapped
	}
	return p, nil
}

// kind is that of a cluster that is neither compressed nor divided.
func (g *geometry) kind(e entry, host int64) disk.Kind {
	switch {
	case g.version > 2 && e.descriptor&flagZero != 0:
		return disk.Zero
	case host != 0:
		return disk.Data
	default:
		return disk.Absent
	}
}

// packed is where a compressed cluster lies in the file: whole sectors but for the first.
func (g *geometry) packed(descriptor uint64) (off, n int64) {
	offsetBits := 62 - (g.bits - 8)
	off = int64(descriptor & (1<<offsetBits - 1) & (1<<56 - 1))
	sectors := int64(descriptor&(flagCompressed-1)>>offsetBits) + 1
	return off, sectors*sectorSize - off%sectorSize
}
