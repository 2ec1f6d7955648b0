package vhd

import (
	"crypto/rand"
	"encoding/binary"
	"math"
	"time"

	"vmreplica/internal/disk"
	"vmreplica/internal/failure"
)

const (
	sectorSize = 512
	footerSize = 512
	// grainSize is the unit of a differencing disk's writes, and what data is aligned to in the file.
	grainSize = 4096
	// noOffset is a field that points nowhere.
	noOffset = math.MaxUint64

	footerCookie  = "conectix"
	formatVersion = 0x00010000
)

// diskType is the footer's.
type diskType uint32

const (
	fixedDisk        diskType = 2
	dynamicDisk      diskType = 3
	differencingDisk diskType = 4
)

func (t diskType) String() string {
	switch t {
	case fixedDisk:
		return "fixed"
	case dynamicDisk:
		return "dynamic"
	case differencingDisk:
		return "differencing"
	default:
		return "unknown"
	}
}

// Where the footer's fields lie.
const (
	footerFeatures   = 8
	footerVersion    = 12
	footerDataOffset = 16
	footerTimeStamp  = 24
	footerCreator    = 28
	footerCreatorVer = 32
	footerCreatorOS  = 36
	footerOriginal   = 40
	footerCurrent    = 48
	footerGeometry   = 56
	footerType       = 60
	footerChecksum   = 64
	footerUniqueID   = 68
	footerSavedState = 84
)

// footer is the sector as it is in the file, so that rewriting one keeps what another program put into it.
type footer [footerSize]byte

// newFooter describes a new disk of size bytes; header is where its header lies, noOffset for a fixed disk.
func newFooter(kind diskType, size int64, header uint64) *footer {
	f := new(footer)
	order := binary.BigEndian
	copy(f[:], footerCookie)
	order.PutUint32(f[footerFeatures:], 2) // reserved, always set
	order.PutUint32(f[footerVersion:], formatVersion)
	order.PutUint64(f[footerDataOffset:], header)
	epoch := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	order.PutUint32(f[footerTimeStamp:], uint32(time.Since(epoch)/time.Second))
	copy(f[footerCreator:], "win ")
	order.PutUint32(f[footerCreatorVer:], 0x000a0000)
	copy(f[footerCreatorOS:], "Wi2k")
	order.PutUint64(f[footerOriginal:], uint64(size))
	order.PutUint64(f[footerCurrent:], uint64(size))
	cylinders, heads, sectors := geometry(size / sectorSize)
	order.PutUint16(f[footerGeometry:], cylinders)
	f[footerGeometry+2], f[footerGeometry+3] = heads, sectors
	order.PutUint32(f[footerType:], uint32(kind))
	f.setIdentity(newIdentity())
	return f
}

// newIdentity is a random UUID, version 4.
func newIdentity() disk.Identity {
	var id disk.Identity
	rand.Read(id[:]) // never fails
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

// parseFooter refuses a sector that is no footer, one with a wrong checksum, and a version or type unknown here.
func parseFooter(sector []byte) (*footer, error) {
	f := (*footer)(sector)
	order := binary.BigEndian
	if string(f[:len(footerCookie)]) != footerCookie {
		return nil, corrupt("there is no VHD footer")
	}
	if got, want := order.Uint32(f[footerChecksum:]), checksum(f[:], footerChecksum); got != want {
		return nil, corrupt("the footer's checksum is %#08x, its bytes have %#08x", got, want)
	}
	if version := order.Uint32(f[footerVersion:]); version>>16 != formatVersion>>16 {
		return nil, unsupported("VHD version %d.%d is not known", version>>16, version&0xffff)
	}
	if f.kind().String() == "unknown" {
		return nil, unsupported("VHD disk type %d is not known", f.kind())
	}
	if size := order.Uint64(f[footerCurrent:]); size > disk.MaxSize {
		return nil, corrupt("its size is %d bytes", size)
	}
	if err := disk.CheckSize(f.size(), sectorSize); err != nil {
		return nil, corrupt("%w", err)
	}
	return f, nil
}

func (f *footer) kind() diskType { return diskType(binary.BigEndian.Uint32(f[footerType:])) }

// size is CurrentSize.
func (f *footer) size() int64 { return int64(binary.BigEndian.Uint64(f[footerCurrent:])) }

func (f *footer) headerOffset() uint64 { return binary.BigEndian.Uint64(f[footerDataOffset:]) }

func (f *footer) identity() disk.Identity { return disk.Identity(f[footerUniqueID:]) }

func (f *footer) setIdentity(id disk.Identity) {
	copy(f[footerUniqueID:], id[:])
	binary.BigEndian.PutUint32(f[footerChecksum:], checksum(f[:], footerChecksum))
}

// describesAs says whether both footers are of one disk: they may differ in the identity and in marks alone.
func (f *footer) describesAs(other *footer) bool {
	return f.kind() == other.kind() && f.size() == other.size() && f.headerOffset() == other.headerOffset()
}

// checksum is the one's complement of the sum of all bytes but the four of the checksum itself.
func checksum(p []byte, field int) uint32 {
	return ^(sum(p) - sum(p[field:field+4]))
}

func sum(p []byte) uint32 {
	var total uint32
	for _, b := range p {
		total += uint32(b)
	}
	return total
}

// geometry is the specification's: what a BIOS is told of a disk of so many sectors.
func geometry(sectors int64) (cylinders uint16, heads, perTrack uint8) {
	sectors = min(sectors, 65535*16*255)
	h, s := int64(16), int64(255)
	if sectors < 65535*16*63 {
		s = 17
		h = max((sectors/s+1023)/1024, 4)
		if sectors/s >= h*1024 || h > 16 {
			s, h = 31, 16
		}
		if sectors/s >= h*1024 {
			s, h = 63, 16
		}
	}
	return uint16(sectors / s / h), uint8(h), uint8(s)
}

func corrupt(format string, args ...any) error {
	return failure.New(failure.Corrupt, failure.ReasonImageUnreadable, "VHD: "+format, args...)
}

func unsupported(format string, args ...any) error {
	return failure.New(failure.Unsupported, failure.ReasonUnsupported, "VHD: "+format, args...)
}
