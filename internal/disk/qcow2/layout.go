package qcow2

import (
	"math/bits"

	"vmreplica/internal/disk"
	"vmreplica/internal/failure"
)

// The layout that Create writes, and the only one that Open accepts.
const (
	clusterBits = 17
	clusterSize = 1 << clusterBits

	subclusters    = 32
	subclusterSize = clusterSize / subclusters

	tableEntries = clusterSize / 16
	// tableSpan is what an L2 table covers of the disk.
	tableSpan = tableEntries * clusterSize

	sliceSize    = 4096
	sliceEntries = sliceSize / 16
	tableSlices  = tableEntries / sliceEntries
	sliceSpan    = sliceEntries * clusterSize

	blockCounts     = clusterSize / 2
	sectorSize      = 512
	flagCopied      = uint64(1) << 63
	flagCompressed  = uint64(1) << 62
	maskOffset      = uint64(1)<<56 - 1<<clusterBits
	maskTablePoint  = flagCopied | maskOffset
	maskRefcountRef = ^uint64(clusterSize - 1)
)

// entry is an extended L2 entry. The low half of subs are allocation bits, the high half zero bits.
type entry struct {
	descriptor uint64
	subs       uint64
}

// host is the offset in the file of the entry's cluster, 0 when it has none.
func (e entry) host() int64 { return int64(e.descriptor & maskOffset) }

func (e entry) data() uint32 { return uint32(e.subs) }

func (e entry) zero() uint32 { return uint32(e.subs >> subclusters) }

// marked is e with the subclusters of mask holding data or zeros.
func (e entry) marked(mask uint32, kind disk.Kind) entry {
	data, zero := e.data()&^mask, e.zero()&^mask
	if kind == disk.Data {
		data |= mask
	} else {
		zero |= mask
	}
	e.subs = uint64(zero)<<subclusters | uint64(data)
	return e
}

// run is the kind of subcluster i and how many from there on share it within the cluster.
func (e entry) run(i int) (disk.Kind, int) {
	data, zero := e.data()>>i, e.zero()>>i
	switch {
	case data&1 != 0:
		return disk.Data, bits.TrailingZeros32(^data)
	case zero&1 != 0:
		return disk.Zero, bits.TrailingZeros32(^zero)
	default:
		return disk.Absent, min(bits.TrailingZeros32(data|zero), subclusters-i)
	}
}

// subclusterMask has a bit for every subcluster that [from, to) of a cluster touches.
func subclusterMask(from, to int64) uint32 {
	first, last := from/subclusterSize, (to-1)/subclusterSize
	return uint32(uint64(1)<<(last+1) - uint64(1)<<first)
}

func corrupt(format string, args ...any) error {
	return failure.New(failure.Corrupt, failure.ReasonImageUnreadable, "the qcow2 overlay is damaged: "+format, args...)
}

func unsupported(format string, args ...any) error {
	return failure.New(failure.Unsupported, failure.ReasonUnsupported, "the qcow2 file is none of ours: "+format, args...)
}
