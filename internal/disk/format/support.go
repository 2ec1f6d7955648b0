package format

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/vhd"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// traits are what distinguishes the formats that have a container.
var traits = map[replication.Format]struct {
	// name is the specification's; signature is what every file of the format has at its beginning or, atEnd, may have
	// in its last sector instead.
	name, signature string
	atEnd           bool
	// maxBytes bounds the disk; largeSectors says that logical sectors of 4096 bytes can be recorded.
	maxBytes     int64
	largeSectors bool
	// extension is of the differencing disks that are made; empty where none are.
	extension string
}{
	replication.FormatVHD:   {name: "VHD", signature: "conectix", atEnd: true, maxBytes: vhd.MaxSize, extension: ".avhd"},
	replication.FormatVHDX:  {name: "VHDX", signature: "vhdxfile", maxBytes: disk.MaxSize, largeSectors: true, extension: ".avhdx"},
	replication.FormatQCOW2: {name: "qcow2", signature: "QFI\xfb", maxBytes: disk.MaxSize, extension: ".qcow2"},
}

// CheckSupport refuses a disk that the format cannot hold: its size in bytes, its logical sector of 512 or 4096.
// Failures: LIMIT_EXCEEDED, SECTOR_SIZE_MISMATCH, UNSUPPORTED for what is no format.
func CheckSupport(f replication.Format, size int64, sectorSize int) error {
	if err := replication.CheckFormat(f); err != nil {
		return err
	}
	if err := disk.CheckSize(size, sectorSize); err != nil {
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "no format holds such a disk: %w", err)
	}
	trait, contained := traits[f]
	switch {
	case contained && sectorSize > 512 && !trait.largeSectors:
		return failure.New(failure.Precondition, failure.ReasonSectorMismatch,
			"a %s image has logical sectors of 512 bytes, this disk has sectors of %d", trait.name, sectorSize).
			Try("Take vhdx or raw for a disk with sectors of %d bytes.", sectorSize)
	case contained && size > trait.maxBytes:
		return failure.New(failure.Precondition, failure.ReasonLimit,
			"a %s image holds at most %d bytes (%d GiB), this disk has %d", trait.name, trait.maxBytes, trait.maxBytes>>30, size).
			Try("Take vhdx, qcow2 or raw for a disk of this size.")
	}
	return nil
}

// LayerFormat is the format of the differencing disks that stand on a base of that format.
func LayerFormat(base replication.Format, policy replication.Differencing) replication.Format {
	if policy == replication.DifferencingByBase && (base == replication.FormatVHD || base == replication.FormatVHDX) {
		return base
	}
	return replication.FormatQCOW2
}

// Extension is what the names of differencing disks of that format end in, as their own tools have it: .avhd, .avhdx or
// .qcow2.
func Extension(layer replication.Format) string { return traits[layer].extension }

// Guess is the format that a file's name suggests; empty when it suggests none. It is for advice only: nothing is
// opened by it.
func Guess(name string) replication.Format {
	name = strings.ToLower(name)
	for _, f := range replication.Formats {
		if strings.HasSuffix(name, "."+string(f)) || Extension(f) != "" && strings.HasSuffix(name, Extension(f)) {
			return f
		}
	}
	return ""
}

// recognize refuses a file without the stated format's signature, saying what is missing and where.
func recognize(file durable.File, f replication.Format, o Options) error {
	if err := replication.CheckFormat(f); err != nil {
		return o.located(err)
	}
	trait, contained := traits[f]
	if !contained {
		return nil
	}
	size, err := file.Size()
	if err != nil {
		return o.located(fmt.Errorf("measure the image: %w", err))
	}
	places := []int64{0}
	where := "at its beginning"
	if trait.atEnd {
		places = append(places, max(size-512, 0))
		where = "neither in its last sector nor in its first"
	}
	for _, off := range places {
		found := make([]byte, len(trait.signature))
		if _, err := file.ReadAt(found, off); err != nil && !errors.Is(err, io.EOF) {
			return o.located(fmt.Errorf("read its signature: %w", err))
		}
		if string(found) == trait.signature {
			return nil
		}
	}
	return unrecognized(f, trait.signature, where, o)
}

func unrecognized(f replication.Format, signature, where string, o Options) error {
	missing := "has no %s signature, %q, %s"
	if strings.HasPrefix(where, "neither") {
		missing = "has the %s signature, %q, %s"
	}
	return failure.New(failure.Precondition, failure.ReasonImageUnreadable, "%s "+missing, o.Path, traits[f].name, signature, where).
		Try("It was stated to be %s: formats are stated, never guessed from content. State the one that it has.", f)
}
