package qcow2

import (
	"encoding/binary"
	"regexp"
	"strings"

	"vmreplica/internal/disk"
	"vmreplica/internal/failure"
)

// The header. Everything that Seal changes lies in the first sector but the parent's name, for which there are two
// places in the header's cluster: the one in use is never overwritten.
const (
	magic           = 0x514649fb
	version         = 3
	refcountOrder   = 4
	extendedL2      = uint64(1) << 4
	headerLength    = 112
	minHeaderLength = 104
	maxParentName   = 1023

	extensionEnd          = 0
	extensionParentFormat = 0xe2792aca

	firstNamePlace  = 4096
	secondNamePlace = 8192
)

// header is what the file's first cluster says. Offsets and lengths are bytes.
type header struct {
	size          int64
	tables        int64 // entries of the L1 table
	l1            int64
	refcountTable int64
	refcountBytes int64
	compatible    uint64
	nameAt        int64 // 0 when there is no parent
	name, format  string
}

// sector is the header's first sector.
func (h *header) sector() []byte {
	p := make([]byte, sectorSize)
	order := binary.BigEndian
	order.PutUint32(p[0:], magic)
	order.PutUint32(p[4:], version)
	order.PutUint64(p[8:], uint64(h.nameAt))
	order.PutUint32(p[16:], uint32(len(h.name)))
	order.PutUint32(p[20:], clusterBits)
	order.PutUint64(p[24:], uint64(h.size))
	order.PutUint32(p[36:], uint32(h.tables))
	order.PutUint64(p[40:], uint64(h.l1))
	order.PutUint64(p[48:], uint64(h.refcountTable))
	order.PutUint32(p[56:], uint32(h.refcountBytes/clusterSize))
	order.PutUint64(p[72:], extendedL2)
	order.PutUint64(p[80:], h.compatible)
	order.PutUint32(p[96:], refcountOrder)
	order.PutUint32(p[100:], headerLength)
	if h.format != "" {
		order.PutUint32(p[headerLength:], extensionParentFormat)
		order.PutUint32(p[headerLength+4:], uint32(len(h.format)))
		copy(p[headerLength+8:], h.format)
	}
	return p
}

// freePlace is a place for a parent's name that does not touch the present one.
func (h *header) freePlace() int64 {
	if h.nameAt < firstNamePlace+maxParentName && h.nameAt+int64(len(h.name)) > firstNamePlace {
		return secondNamePlace
	}
	return firstNamePlace
}

// parseHeader reads a header from the file's first cluster, of which p holds as much as the file has.
// fileSize is the file's size in whole clusters.
func parseHeader(p []byte, fileSize int64) (*header, error) {
	order := binary.BigEndian
	if len(p) < minHeaderLength || order.Uint32(p) != magic {
		return nil, unsupported("it has no qcow2 header")
	}
	if v := order.Uint32(p[4:]); v != version {
		return nil, unsupported("its version is %d, not %d", v, version)
	}
	if err := checkFeatures(p); err != nil {
		return nil, err
	}
	h := &header{
		size:          int64(order.Uint64(p[24:])),
		tables:        int64(order.Uint32(p[36:])),
		l1:            int64(order.Uint64(p[40:])),
		refcountTable: int64(order.Uint64(p[48:])),
		refcountBytes: int64(order.Uint32(p[56:])) * clusterSize,
		compatible:    order.Uint64(p[80:]),
	}
	if err := h.checkTables(fileSize); err != nil {
		return nil, err
	}
	return h, h.parseParent(p)
}

// checkFeatures refuses every variant of the format that is not the overlay's.
func checkFeatures(p []byte) error {
	order := binary.BigEndian
	features := order.Uint64(p[72:])
	switch {
	case features&1 != 0:
		return unsupported("it is marked dirty: another program did not close it; `qemu-img check -r all` repairs it")
	case features&2 != 0:
		return corrupt("it is marked corrupt")
	case features&extendedL2 == 0:
		return unsupported("it has no extended L2 entries")
	case features != extendedL2:
		return unsupported("it needs incompatible features %#x", features&^extendedL2)
	case order.Uint32(p[20:]) != clusterBits:
		return unsupported("its cluster bits are %d, not %d", order.Uint32(p[20:]), clusterBits)
	case order.Uint32(p[32:]) != 0:
		return unsupported("it is encrypted")
	case order.Uint32(p[60:]) != 0:
		return unsupported("it holds internal snapshots")
	case order.Uint64(p[88:]) != 0:
		return unsupported("it has autoclear features %#x", order.Uint64(p[88:]))
	case order.Uint32(p[96:]) != refcountOrder:
		return unsupported("its refcount order is %d, not %d", order.Uint32(p[96:]), refcountOrder)
	}
	return nil
}

// checkTables holds the sizes and the places of the two top tables against each other and the file.
func (h *header) checkTables(fileSize int64) error {
	if err := disk.CheckSize(h.size, sectorSize); err != nil {
		return corrupt("%w", err)
	}
	if h.tables < tablesOf(h.size) || h.tables > tablesOf(disk.MaxSize) {
		return corrupt("an L1 table of %d entries for a disk of %d bytes", h.tables, h.size)
	}
	if h.refcountBytes < clusterSize || h.refcountBytes > maxRefcountBytes {
		return corrupt("a refcount table of %d bytes", h.refcountBytes)
	}
	if !insideFile(h.l1, h.tables*8, fileSize) {
		return corrupt("the L1 table at %d lies outside the file", h.l1)
	}
	if !insideFile(h.refcountTable, h.refcountBytes, fileSize) {
		return corrupt("the refcount table at %d lies outside the file", h.refcountTable)
	}
	if h.l1 < h.refcountTable+h.refcountBytes && h.refcountTable < h.l1+h.tables*8 {
		return corrupt("the L1 table and the refcount table overlap")
	}
	return nil
}

// insideFile says whether n bytes at off start at a cluster behind the header and lie within the file.
func insideFile(off, n, fileSize int64) bool {
	return off >= clusterSize && off%clusterSize == 0 && off <= fileSize && n <= fileSize-off
}

// parseParent reads the parent's name and the extension with its format.
func (h *header) parseParent(p []byte) error {
	order := binary.BigEndian
	length := int64(order.Uint32(p[100:]))
	nameAt, nameLength := order.Uint64(p[8:]), int64(order.Uint32(p[16:]))
	end := int64(len(p))
	if nameAt != 0 {
		if nameAt > uint64(len(p)) || nameLength > maxParentName || nameLength > end-int64(nameAt) {
			return corrupt("the parent's name lies outside the header")
		}
		end = int64(nameAt)
		h.nameAt, h.name = end, string(p[end:end+nameLength])
	}
	if length < minHeaderLength || length%8 != 0 || length > end {
		return corrupt("a header of %d bytes", length)
	}
	return h.parseExtensions(p[length:end])
}

func (h *header) parseExtensions(p []byte) error {
	if !extensions(p, func(kind uint32, data []byte) {
		if kind == extensionParentFormat {
			h.format = string(data)
		}
	}) {
		return corrupt("a header extension leaves the header")
	}
	return nil
}

var formatName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// checkParent refuses names that the format cannot hold, or that QEMU would not take for a file's.
func checkParent(name, format string) error {
	before, _, _ := strings.Cut(name, "/")
	switch {
	case name == "" || len(name) > maxParentName:
		return failure.New(failure.Invalid, failure.ReasonInvalidName, "a parent's name has 1 to %d bytes, this one has %d",
			maxParentName, len(name))
	case strings.ContainsRune(name, 0):
		return failure.New(failure.Invalid, failure.ReasonInvalidName, "the parent's name holds a zero byte")
	case strings.Contains(before, ":"):
		return failure.New(failure.Invalid, failure.ReasonInvalidName,
			"the parent's name %q would be read as a protocol, for the colon before its first slash", name)
	case !formatName.MatchString(format):
		return failure.New(failure.Invalid, failure.ReasonInvalidName, "%q is no name of a disk format", format)
	}
	return nil
}

// tablesOf is the number of L2 tables that a disk of that size can have.
func tablesOf(size int64) int64 { return (size + tableSpan - 1) / tableSpan }
