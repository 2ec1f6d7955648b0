package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

// maxRefcountBytes is the largest refcount table that is read. The one that Create writes, a single cluster, counts
// a file of 128 TiB: twice the largest disk, so it never grows.
const maxRefcountBytes = 8 * clusterSize

// Overlay is one open differencing disk. Its methods may be called concurrently; writes of overlapping ranges have
// no order among themselves.
type Overlay struct {
	file durable.File
	mode durable.Mode
	size int64
	// end is where a file that is only read ends: what a table places behind it reads as zeros.
	end int64

	// flushing is held by Flush and Seal, one at a time, over their I/O. It guards the parent in header; the rest of
	// the header does not change.
	flushing sync.Mutex
	header   header
	// growing is held while the file is made longer.
	growing sync.Mutex

	// mu guards what follows; no I/O is done under it.
	mu       sync.Mutex
	failed   error // the first error of a Flush: final
	cache    cache
	l1       []uint64
	l1Dirty  map[int64]struct{} // the 4 KiB pages of the L1 table that changed
	blocks   []int64            // the refcount table: offsets of refcount blocks
	fresh    []int64            // indexes of refcount blocks that the file's refcount table has not yet
	metadata map[int64]struct{} // clusters of the file that are L2 tables or refcount blocks
	grown    int64              // the file's size, in clusters
	next     int64              // the first cluster never handed out
	counted  int64              // clusters below have their refcount in the file
}

// Option changes how an Overlay is opened.
type Option func(*Overlay)

// MetadataLimit bounds the memory for L2 tables, in bytes: cached, dirty, and held by a Flush together. The default
// is 64 MiB, which covers 512 GiB of densely written disk; below 64 KiB it is taken as 64 KiB. On top come 8 bytes
// for each GiB of the disk, some 40 for each L2 table in use, the refcount table of 128 KiB, and up to 1 MiB in a
// Flush.
func MetadataLimit(bytes int64) Option {
	return func(o *Overlay) { o.cache.limit = int(max(bytes, 64<<10) / sliceSize) }
}

const defaultMetadataLimit = 64 << 20

func newOverlay(f durable.File, mode durable.Mode, h *header, options []Option) *Overlay {
	o := &Overlay{file: f, mode: mode, size: h.size, header: *h, end: math.MaxInt64,
		l1Dirty: make(map[int64]struct{}), metadata: make(map[int64]struct{})}
	o.cache.slices = make(map[int64]*slice)
	MetadataLimit(defaultMetadataLimit)(o)
	for _, option := range options {
		option(o)
	}
	return o
}

// Create makes f, which must be empty, an overlay of size bytes in which everything is absent. It is durable when
// Create returns and the caller has synced the directory. A crash before that leaves a file that Open refuses, or
// the whole overlay.
func Create(f durable.File, size int64, options ...Option) (*Overlay, error) {
	if err := disk.CheckSize(size, sectorSize); err != nil {
		return nil, failure.New(failure.Invalid, failure.ReasonInvalidArgument, "create qcow2 overlay: %w", err)
	}
	present, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("create qcow2 overlay: %w", err)
	}
	if present != 0 {
		return nil, failure.New(failure.Exists, failure.ReasonAlreadyExists,
			"create qcow2 overlay: the file already holds %d bytes", present)
	}
	h := &header{size: size, tables: tablesOf(size), refcountTable: clusterSize, refcountBytes: clusterSize,
		l1: 3 * clusterSize}
	o := newOverlay(f, durable.ReadWrite, h, options)
	o.l1 = make([]uint64, h.tables)
	o.blocks = make([]int64, h.refcountBytes/8)
	o.blocks[0] = 2 * clusterSize
	o.metadata[2] = struct{}{}
	o.next = 3 + (h.tables*8+clusterSize-1)/clusterSize
	o.grown, o.counted = o.next, o.next
	if err := o.format(); err != nil {
		return nil, fmt.Errorf("create qcow2 overlay: %w", err)
	}
	return o, nil
}

// format writes the tables of an empty overlay, syncs, and then writes the header that makes it one.
func (o *Overlay) format() error {
	if err := o.file.Truncate(o.grown * clusterSize); err != nil {
		return err
	}
	if _, err := o.file.WriteAt(countsOfOne(o.next), o.blocks[0]); err != nil {
		return err
	}
	pointer := binary.BigEndian.AppendUint64(nil, uint64(o.blocks[0]))
	if _, err := o.file.WriteAt(pointer, o.header.refcountTable); err != nil {
		return err
	}
	if err := o.file.Sync(); err != nil {
		return err
	}
	return o.writeHeader(&o.header)
}

// Open opens an overlay. It believes nothing in the file: what does not fit together is refused, class Corrupt, and
// a qcow2 file of another make is refused, class Unsupported. The parent is not opened. New clusters go behind the
// end of the file, so clusters that a crash leaked are left alone.
func Open(f durable.File, mode durable.Mode, options ...Option) (*Overlay, error) {
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("open qcow2 overlay: %w", err)
	}
	first := make([]byte, min(size, clusterSize))
	if _, err := f.ReadAt(first, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("open qcow2 overlay: read header: %w", err)
	}
	clusters := (size + clusterSize - 1) / clusterSize
	h, err := parseHeader(first, clusters*clusterSize)
	if err != nil {
		return nil, err
	}
	o := newOverlay(f, mode, h, options)
	o.grown, o.next, o.counted = clusters, clusters, clusters
	if mode == durable.ReadWrite && size%clusterSize != 0 {
		if err := f.Truncate(clusters * clusterSize); err != nil {
			return nil, fmt.Errorf("open qcow2 overlay: %w", err)
		}
	}
	if mode == durable.ReadOnly {
		o.end = size
	}
	if err := o.loadTables(); err != nil {
		return nil, err
	}
	return o, nil
}

// loadTables reads and checks the refcount table and the L1 table.
func (o *Overlay) loadTables() error {
	raw, err := o.readTable(o.header.refcountTable, o.header.refcountBytes/8)
	if err != nil {
		return fmt.Errorf("open qcow2 overlay: read refcount table: %w", err)
	}
	o.blocks = make([]int64, len(raw))
	for i, point := range raw {
		if point&^maskRefcountRef != 0 || (point != 0 && !o.claim(int64(point))) {
			return corrupt("entry %d of the refcount table is %#x", i, point)
		}
		o.blocks[i] = int64(point)
	}
	o.l1, err = o.readTable(o.header.l1, tablesOf(o.size))
	if err != nil {
		return fmt.Errorf("open qcow2 overlay: read L1 table: %w", err)
	}
	for i, point := range o.l1 {
		if point == 0 {
			continue
		}
		if point&^maskTablePoint != 0 || point&flagCopied == 0 || !o.claim(int64(point&maskOffset)) {
			return corrupt("entry %d of the L1 table is %#x", i, point)
		}
	}
	return nil
}

// claim notes the cluster at off as a table; false when no table can be there or another one is.
func (o *Overlay) claim(off int64) bool {
	if !insideFile(off, clusterSize, o.grown*clusterSize) || o.inTopTable(off) {
		return false
	}
	before := len(o.metadata)
	o.metadata[off/clusterSize] = struct{}{}
	return len(o.metadata) > before
}

// inTopTable says whether the cluster at off belongs to the L1 or the refcount table.
func (o *Overlay) inTopTable(off int64) bool {
	h := &o.header
	return off >= h.refcountTable && off < h.refcountTable+h.refcountBytes ||
		off >= h.l1 && off < h.l1+h.tables*8
}

func (o *Overlay) readTable(off, entries int64) ([]uint64, error) {
	raw := make([]byte, entries*8)
	if err := o.readFile(raw, off); err != nil {
		return nil, err
	}
	table := make([]uint64, entries)
	for i := range table {
		table[i] = binary.BigEndian.Uint64(raw[i*8:])
	}
	return table, nil
}

// Size is the disk's size in bytes.
func (o *Overlay) Size() int64 { return o.size }

// LogicalSectorSize is 512: the format does not record another.
func (o *Overlay) LogicalSectorSize() int { return sectorSize }

// AllocatedBytes is the space that the file takes on its filesystem; false for a file without a descriptor.
func (o *Overlay) AllocatedBytes() (int64, bool) { return durable.Allocated(o.file) }

// Close flushes what a writer left and closes the file.
func (o *Overlay) Close() error {
	return errors.Join(o.Flush(), o.file.Close())
}

var _ disk.Layer = (*Overlay)(nil)
