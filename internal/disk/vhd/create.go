package vhd

import (
	"bytes"
	"errors"
	"fmt"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

const (
	// MaxSize bounds the disks that are made: 2040 GiB, Windows' limit for the format.
	MaxSize = 2040 << 30
	// DefaultBlock is Windows' default.
	DefaultBlock = 2 << 20
	smallBlock   = 512 << 10
)

// Options say what Create makes.
type Options struct {
	// SizeBytes is the disk's size: a multiple of 512, at most 2040 GiB.
	SizeBytes int64
	// BlockBytes is what is allocated at a time: 512 KiB or 2 MiB, which 0 stands for. A fixed disk has none.
	BlockBytes int64
	// Fixed makes a fixed disk, whose file is sparse on the host.
	Fixed bool
}

// Create takes over file, which must be empty, and makes it a base that reads as zeros. It is durable when Create
// returns and the caller has synced the directory; a crash before that leaves a file that Open refuses, or the
// whole disk. An error closes the file. Failures: INVALID_ARGUMENT, LIMIT_EXCEEDED, ALREADY_EXISTS.
func Create(file durable.File, o Options) (*Image, error) {
	if err := o.check(file); err != nil {
		return nil, notCreated(file, err)
	}
	if o.Fixed {
		made, err := createFixed(file, o.SizeBytes)
		if err != nil {
			return nil, notCreated(file, err)
		}
		return &Image{made}, nil
	}
	made, err := createSparse(file, dynamicDisk, dynamicBAT, o)
	if err != nil {
		return nil, notCreated(file, err)
	}
	return &Image{made}, nil
}

// CreateDifferencing is Create for a differencing disk in which everything is absent. Its header names no parent
// before Seal.
func CreateDifferencing(file durable.File, o Options) (*Layer, error) {
	err := o.check(file)
	if err == nil && o.Fixed {
		err = failure.New(failure.Invalid, failure.ReasonInvalidArgument, "a differencing disk cannot be fixed")
	}
	if err != nil {
		return nil, notCreated(file, err)
	}
	made, err := createSparse(file, differencingDisk, differenceBAT, o)
	if err != nil {
		return nil, notCreated(file, err)
	}
	return &Layer{sparse: made}, nil
}

func notCreated(file durable.File, err error) error {
	return errors.Join(fmt.Errorf("create VHD: %w", err), file.Close())
}

func (o *Options) check(file durable.File) error {
	if o.SizeBytes > MaxSize {
		return failure.New(failure.Invalid, failure.ReasonLimit,
			"a VHD disk has 2040 GiB (%d bytes) at most; this one has %d bytes", int64(MaxSize), o.SizeBytes).
			Try("use vhdx, qcow2 or raw for it")
	}
	if err := disk.CheckSize(o.SizeBytes, sectorSize); err != nil {
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "%w", err)
	}
	if o.BlockBytes == 0 {
		o.BlockBytes = DefaultBlock
	}
	if o.BlockBytes != DefaultBlock && o.BlockBytes != smallBlock {
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument,
			"a VHD block has 512 KiB or 2 MiB, not %d bytes", o.BlockBytes)
	}
	present, err := file.Size()
	if err != nil {
		return fmt.Errorf("measure the file: %w", err)
	}
	if present != 0 {
		return failure.New(failure.Exists, failure.ReasonAlreadyExists, "the file already holds %d bytes", present)
	}
	return nil
}

// createFixed makes the file long, and the footer last.
func createFixed(file durable.File, size int64) (*fixed, error) {
	f := newFooter(fixedDisk, size, noOffset)
	if err := file.Truncate(size); err != nil {
		return nil, err
	}
	if _, err := file.WriteAt(f[:], size); err != nil {
		return nil, err
	}
	if err := file.Sync(); err != nil {
		return nil, err
	}
	return newFixed(file, durable.ReadWrite, f, size), nil
}

// createSparse writes the header and the BAT, syncs, and then the footers, either of which makes the file a disk.
func createSparse(file durable.File, kind diskType, bat int64, o Options) (*sparse, error) {
	entries := (o.SizeBytes + o.BlockBytes - 1) / o.BlockBytes
	h := newHeader(bat, entries, o.BlockBytes)
	f := newFooter(kind, o.SizeBytes, headerAt)
	if _, err := file.WriteAt(h[:], headerAt); err != nil {
		return nil, err
	}
	end := bat + batBytes(entries)
	for at := bat; at < end; at += maxTransfer {
		piece := bytes.Repeat([]byte{0xff}, int(min(maxTransfer, end-at)))
		if _, err := file.WriteAt(piece, at); err != nil {
			return nil, err
		}
	}
	if err := file.Sync(); err != nil {
		return nil, err
	}
	for _, at := range []int64{0, end} {
		if _, err := file.WriteAt(f[:], at); err != nil {
			return nil, err
		}
	}
	if err := file.Sync(); err != nil {
		return nil, err
	}
	both := &footers{fileSize: end + footerSize, end: f, copy: f, chosen: f}
	return newSparse(file, durable.ReadWrite, both, &headerFound{header: h, offset: headerAt})
}

// maxTransfer bounds one write of metadata.
const maxTransfer = 1 << 20
