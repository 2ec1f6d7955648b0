package replication

import (
	"slices"
	"strings"

	"vmreplica/internal/failure"
)

// Format is how the bytes of an image are to be read: stated by the operator, never probed.
type Format string

// Formats.
const (
	// FormatRaw is the disk's bytes and nothing else: an image file, or a block device.
	FormatRaw Format = "raw"
	// FormatVHD is Virtual PC's and Hyper-V's: fixed, dynamic or differencing.
	FormatVHD Format = "vhd"
	// FormatVHDX is Hyper-V's: fixed, dynamic or differencing.
	FormatVHDX Format = "vhdx"
	// FormatQCOW2 is QEMU's, versions 2 and 3, with or without a backing file.
	FormatQCOW2 Format = "qcow2"
)

// Formats are all of them, as they are listed to an operator.
var Formats = []Format{FormatRaw, FormatVHD, FormatVHDX, FormatQCOW2}

// Known says whether f is one of Formats.
func (f Format) Known() bool { return slices.Contains(Formats, f) }

// CheckFormat refuses a word that is no format, and none: a format is always stated.
func CheckFormat(f Format) error {
	if f.Known() {
		return nil
	}
	names := make([]string, len(Formats))
	for i, known := range Formats {
		names[i] = string(known)
	}
	what := failure.New(failure.Invalid, failure.ReasonUnsupported, "no format is stated")
	if f != "" {
		what = failure.New(failure.Invalid, failure.ReasonUnsupported, "the format %.40q is not known", string(f))
	}
	return what.Try("State one of %s: formats are never guessed from content.", strings.Join(names, ", "))
}

// Differencing is the policy that chooses the format of the differencing disks that a resync makes.
type Differencing string

// The policies.
const (
	// DifferencingByBase takes the base's own: VHD and VHDX have one, any other base gets a qcow2 overlay.
	DifferencingByBase Differencing = ""
	// DifferencingQCOW2 puts a qcow2 overlay over any base.
	DifferencingQCOW2 Differencing = "qcow2"
)

// CheckDifferencing refuses a word that is no policy.
func CheckDifferencing(d Differencing) error {
	if d == DifferencingByBase || d == DifferencingQCOW2 {
		return nil
	}
	return failure.New(failure.Invalid, failure.ReasonUnsupported, "the differencing format %.40q is not known", string(d)).
		Try("State qcow2 for overlays over any base, or nothing for the base's own differencing format.")
}

// DiskSpec is one disk as the operator asked for it.
type DiskSpec struct {
	ID     string
	Path   string
	Format Format
	// ReplicaFormat is the format of the base that the replica makes or adopts; empty in records of before it could be
	// stated: raw.
	ReplicaFormat Format
	// Differencing chooses the format of the replica's differencing disks.
	Differencing Differencing
	// Backing are the files that the image stands on, the nearest first, absolute and without links, as they were when
	// the disk was enabled. It is recorded, not asked for.
	Backing []string
}

// SameAs says whether two ask for the same. What was recorded meanwhile does not count.
func (d DiskSpec) SameAs(other DiskSpec) bool {
	return d.ID == other.ID && d.Path == other.Path && d.Format == other.Format &&
		d.BaseFormat() == other.BaseFormat() && d.Differencing == other.Differencing
}

// BaseFormat is the format of the replica's base.
func (d DiskSpec) BaseFormat() Format {
	if d.ReplicaFormat == "" {
		return FormatRaw
	}
	return d.ReplicaFormat
}
