package qcow2

import (
	"encoding/binary"
	"errors"
	"io"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
)

// Features, as the header numbers them.
const (
	incompatibleDirty       = uint64(1) << 0
	incompatibleCorrupt     = uint64(1) << 1
	incompatibleExternal    = uint64(1) << 2
	incompatibleCompression = uint64(1) << 3
	incompatibleKnown       = uint64(1)<<5 - 1

	compatibleLazy = uint64(1) << 0

	autoclearBitmaps = uint64(1) << 0

	extensionBitmaps = 0x23852875

	version2Length = 72
	fieldAutoclear = 88
)

// The compression types.
const (
	compressionDeflate = 0
	compressionZstd    = 1
)

// imageHeader is what any qcow2 file's header says. Offsets and lengths are bytes.
type imageHeader struct {
	geometry
	size                                int64
	tables                              int64 // entries of the L1 table
	l1                                  int64
	refcountTable, refcountBytes        int64
	snapshots, snapshotCount            int64
	incompatible, compatible, autoclear uint64
	encryption                          uint32
	compression                         byte
	length                              int64
	nameAt                              uint64
	name, format                        string
	bitmaps                             bitmapDirectory
}

// bitmapDirectory is the bitmaps extension.
type bitmapDirectory struct{ offset, bytes, count int64 }

// readImageHeader reads and parses the header of a file of fileSize bytes. What it answers is consistent, but may be
// more than is supported: usable says.
func readImageHeader(file io.ReaderAt, fileSize int64) (*imageHeader, error) {
	p := make([]byte, min(fileSize, headerLength))
	if err := readInside(file, fileSize, p, 0); err != nil {
		return nil, err
	}
	h, err := parseFields(p)
	if err != nil {
		return nil, err
	}
	first := make([]byte, min(fileSize, h.cluster))
	if err := readInside(file, fileSize, first, 0); err != nil {
		return nil, err
	}
	if err := h.parseRest(first); err != nil {
		return nil, err
	}
	return h, h.checkPlaces(fileSize)
}

// parseFields reads the fixed fields of p, the file's first bytes.
func parseFields(p []byte) (*imageHeader, error) {
	order := binary.BigEndian
	if len(p) < version2Length || order.Uint32(p) != magic {
		return nil, notRead("it has no qcow2 header")
	}
	fileVersion, bits, refcounts := order.Uint32(p[4:]), order.Uint32(p[20:]), uint32(refcountOrder)
	h := &imageHeader{length: version2Length}
	switch {
	case fileVersion != 2 && fileVersion != version:
		return nil, notRead("its version is %d, neither 2 nor 3", fileVersion)
	case fileVersion == version && len(p) < minHeaderLength:
		return nil, damaged("the header is cut short")
	case fileVersion == version:
		h.incompatible, h.compatible = order.Uint64(p[72:]), order.Uint64(p[80:])
		h.autoclear, h.length = order.Uint64(p[fieldAutoclear:]), int64(order.Uint32(p[100:]))
		refcounts = order.Uint32(p[96:])
	}
	if bits < minClusterBits || bits > maxClusterBits {
		return nil, notRead("its clusters have 2^%d bytes, not 512 bytes to 2 MiB", bits)
	}
	if refcounts > maxOrder {
		return nil, damaged("the refcount order is %d", refcounts)
	}
	if h.length > minHeaderLength && len(p) > minHeaderLength {
		h.compression = p[minHeaderLength]
	}
	h.geometry = newGeometry(fileVersion, uint(bits), uint(refcounts), h.incompatible&extendedL2 != 0)
	h.size = int64(order.Uint64(p[24:]))
	h.encryption = order.Uint32(p[32:])
	h.tables, h.l1 = int64(order.Uint32(p[36:])), int64(order.Uint64(p[40:]))
	h.refcountTable, h.refcountBytes = int64(order.Uint64(p[48:])), int64(order.Uint32(p[56:]))<<bits
	h.snapshotCount, h.snapshots = int64(order.Uint32(p[60:])), int64(order.Uint64(p[64:]))
	h.nameAt = order.Uint64(p[8:])
	return h, nil
}

// parseRest reads the extensions and the backing file's name from the first cluster.
func (h *imageHeader) parseRest(p []byte) error {
	end := int64(len(p))
	if h.nameAt != 0 {
		length := int64(binary.BigEndian.Uint32(p[16:]))
		if h.nameAt > uint64(end) || length > maxParentName || length > end-int64(h.nameAt) || length == 0 {
			return damaged("the backing file's name lies outside the first cluster")
		}
		end = int64(h.nameAt)
		h.name = string(p[end : end+length])
	}
	if h.length%8 != 0 || h.version > 2 && h.length < minHeaderLength || h.length > end {
		return damaged("a header of %d bytes", h.length)
	}
	if !extensions(p[h.length:end], h.extension) {
		return damaged("a header extension leaves the header")
	}
	return nil
}

func (h *imageHeader) extension(kind uint32, data []byte) {
	order := binary.BigEndian
	switch {
	case kind == extensionParentFormat:
		h.format = string(data)
	case kind == extensionBitmaps && len(data) >= 24:
		h.bitmaps = bitmapDirectory{offset: int64(order.Uint64(data[16:])), bytes: int64(order.Uint64(data[8:])),
			count: int64(order.Uint32(data))}
	}
}

// extensions calls visit for every header extension in p; false when one leaves p.
func extensions(p []byte, visit func(kind uint32, data []byte)) bool {
	for len(p) >= 8 {
		kind, length := binary.BigEndian.Uint32(p), int64(binary.BigEndian.Uint32(p[4:]))
		if kind == extensionEnd {
			return true
		}
		p = p[8:]
		if length > int64(len(p)) {
			return false
		}
		visit(kind, p[:length])
		p = p[min((length+7)&^7, int64(len(p))):]
	}
	return true
}

// checkPlaces holds sizes and the places of the top tables against each other and the file.
func (h *imageHeader) checkPlaces(fileSize int64) error {
	if err := disk.CheckSize(h.size, sectorSize); err != nil {
		return notRead("%w", err)
	}
	switch {
	case h.extended && h.bits < minExtendedBits:
		return damaged("extended L2 entries with clusters of %d bytes", h.cluster)
	case h.tablesOf(h.size)*8 > maxL1Bytes || h.tables*8 > maxL1Bytes:
		return notRead("its L1 table has more than %d bytes", maxL1Bytes)
	case h.tables < h.tablesOf(h.size):
		return damaged("an L1 table of %d entries for a disk of %d bytes", h.tables, h.size)
	case h.refcountBytes < h.cluster || h.refcountBytes > maxCountsBytes:
		return damaged("a refcount table of %d bytes", h.refcountBytes)
	case !h.inside(h.l1, h.tables*8, fileSize):
		return damaged("the L1 table at %d lies outside the file", h.l1)
	case !h.inside(h.refcountTable, 8, fileSize):
		return damaged("the refcount table at %d lies outside the file", h.refcountTable)
	case h.l1 < h.refcountTable+h.refcountBytes && h.refcountTable < h.l1+h.tables*8:
		return damaged("the L1 table and the refcount table overlap")
	}
	return nil
}

// inside says whether n bytes at off start at a cluster behind the header and lie in a file of fileSize bytes.
func (g *geometry) inside(off, n, fileSize int64) bool {
	return off >= g.cluster && off&(g.cluster-1) == 0 && off <= fileSize && n <= fileSize-off
}

// topTable says whether one of n bytes at off belongs to the header, the L1 table or the refcount table.
func (h *imageHeader) topTable(off, n int64) bool {
	return off < h.cluster || off < h.l1+h.tables*8 && h.l1 < off+n ||
		off < h.refcountTable+h.refcountBytes && h.refcountTable < off+n
}

// usable refuses what is not read or, in mode ReadWrite, not written.
func (h *imageHeader) usable(mode durable.Mode) error {
	const repair = "`qemu-img check -r all` repairs it"
	switch {
	case h.encryption != 0:
		return notRead("it is encrypted").Try("`qemu-img convert` makes one that is not")
	case h.incompatible&incompatibleExternal != 0:
		return notRead("its data is in another file").Try("`qemu-img convert` makes one that holds its data")
	case h.incompatible&^incompatibleKnown != 0:
		return notRead("it needs unknown features %#x", h.incompatible&^incompatibleKnown)
	case h.incompatible&incompatibleCorrupt != 0:
		return damaged("it is marked corrupt")
	case (h.incompatible&incompatibleCompression != 0) != (h.compression != compressionDeflate):
		return damaged("its compression type is %d, its features are %#x", h.compression, h.incompatible)
	case h.compression > compressionZstd:
		return notRead("its compression type is %d", h.compression)
	case mode == durable.ReadOnly:
		return nil
	case h.name != "":
		return notRead("it has a backing file, and a base must hold all its bytes").
			Try("`qemu-img rebase -b \"\"` gives it all of them")
	case h.incompatible&incompatibleDirty != 0:
		return notRead("it is marked dirty: another program did not close it").Try(repair)
	}
	return nil
}

// readInside fills p from a file of size bytes; what lies behind its end is zeros.
func readInside(file io.ReaderAt, size int64, p []byte, off int64) error {
	if n := max(size-off, 0); n < int64(len(p)) {
		clear(p[n:])
		p = p[:n]
	}
	if len(p) == 0 {
		return nil
	}
	if n, err := file.ReadAt(p, off); err != nil && !(errors.Is(err, io.EOF) && n == len(p)) {
		return err
	}
	return nil
}
