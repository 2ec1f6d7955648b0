package qcow2

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	// inflatedClusters is how many decompressed clusters are remembered, for reads in pieces.
	inflatedClusters = 4
	// maxWindow bounds what a zstd frame may make its decoder keep: QEMU's frames need a cluster's size.
	maxWindow = 8 << 20
)

// inflater decompresses clusters, one at a time.
type inflater struct {
	header *imageHeader

	mu     sync.Mutex
	recent []inflated // the newest first
	packed []byte
	flate  io.Reader
	zstd   *zstd.Decoder
}

type inflated struct {
	descriptor uint64
	content    []byte
}

// read fills p with what lies inside bytes into the cluster of that descriptor.
func (f *inflater) read(p []byte, file io.ReaderAt, size int64, descriptor uint64, inside int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n, known := range f.recent {
		if known.descriptor == descriptor {
			copy(p, known.content[inside:])
			copy(f.recent[1:], f.recent[:n])
			f.recent[0] = known
			return nil
		}
	}
	content, err := f.inflate(file, size, descriptor)
	if err != nil {
		return err
	}
	copy(p, content[inside:])
	f.recent = append(f.recent, inflated{})
	copy(f.recent[1:], f.recent)
	f.recent[0] = inflated{descriptor, content}
	return nil
}

// forget drops what is remembered: descriptors may come to mean something else.
func (f *inflater) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.recent = nil
}

func (f *inflater) inflate(file io.ReaderAt, size int64, descriptor uint64) ([]byte, error) {
	off, n := f.header.packed(descriptor)
	if off >= size {
		return nil, damaged("a compressed cluster is placed at %d of the file", off)
	}
	n = min(n, size-off)
	if int64(cap(f.packed)) < n {
		f.packed = make([]byte, n)
	}
	f.packed = f.packed[:n]
	if err := readInside(file, size, f.packed, off); err != nil {
		return nil, fmt.Errorf("read compressed cluster of qcow2 image: %w", err)
	}
	from, err := f.decoder(bytes.NewReader(f.packed))
	if err != nil {
		return nil, err
	}
	content := f.room()
	if _, err := io.ReadFull(from, content); err != nil {
		return nil, damaged("the compressed cluster at %d of the file cannot be decompressed: %w", off, err)
	}
	return content, nil
}

// room is a buffer for a cluster, the oldest one when there are enough.
func (f *inflater) room() []byte {
	if last := len(f.recent) - 1; last == inflatedClusters-1 {
		content := f.recent[last].content
		f.recent = f.recent[:last]
		return content
	}
	return make([]byte, f.header.cluster)
}

// decoder reads what packed decompresses to.
func (f *inflater) decoder(packed *bytes.Reader) (io.Reader, error) {
	if f.header.compression == compressionZstd {
		return f.zstdDecoder(packed)
	}
	if f.flate == nil {
		f.flate = flate.NewReader(packed)
		return f.flate, nil
	}
	return f.flate, f.flate.(flate.Resetter).Reset(packed, nil)
}

func (f *inflater) zstdDecoder(packed *bytes.Reader) (io.Reader, error) {
	if f.zstd != nil {
		return f.zstd, f.zstd.Reset(packed)
	}
	var err error
	f.zstd, err = zstd.NewReader(packed, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxWindow))
	return f.zstd, err
}
