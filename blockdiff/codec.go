package blockdiff

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
)

// ErrDigest is answered, together with ErrFrame, for a frame whose content is not what its sender digested.
var ErrDigest = errors.New("plaintext digest mismatch")

// Codec is how a frame's payload is coded. The numbers are those of the wire.
type Codec uint8

// The codecs.
const (
	CodecNone Codec = iota + 1
	CodecZstd
)

// String names the codec.
func (c Codec) String() string {
	switch c {
	case CodecNone:
		return "none"
	case CodecZstd:
		return "zstd"
	default:
		return fmt.Sprintf("codec %d", uint8(c))
	}
}

const (
	// encoderWindow bounds what one compression holds in memory, in bytes.
	encoderWindow = 512 << 10
	// Content from sampledSize on is judged by samplePieces pieces of samplePiece bytes each before it is
	// compressed whole: sampleGain is the part, one in so many, that the pieces must shrink by.
	sampledSize  = 128 << 10
	samplePieces = 8
	samplePiece  = 2 << 10
	sampleGain   = 16
)

// Encoder codes frames. It may be used concurrently; as many frames are compressed at a time as there are
// processors, others wait.
type Encoder struct {
	zstd    *zstd.Encoder
	err     error // why there is no zstd
	samples sync.Pool
}

// NewEncoder makes an Encoder. It starts no goroutine and needs no Close.
func NewEncoder() *Encoder {
	encoder, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithWindowSize(encoderWindow),
		// The plaintext digest covers what a checksum would.
		zstd.WithEncoderCRC(false))
	return &Encoder{zstd: encoder, err: err}
}

// Encode codes plain for a disk. The frame shares no memory with plain. A list that no frame can hold is an
// ErrFrame.
func (e *Encoder) Encode(g Geometry, plain *Plain) (Frame, error) {
	return e.EncodeTo(nil, g, plain)
}

// EncodeTo is Encode with the payload in scratch, as far as its capacity suffices: a caller that has sent a frame
// passes its Payload for the next one.
func (e *Encoder) EncodeTo(scratch []byte, g Geometry, plain *Plain) (Frame, error) {
	if e.err != nil {
		return Frame{}, fmt.Errorf("make a zstd encoder: %w", e.err)
	}
	coded, plaintext, err := codeExtents(g, plain.Extents)
	if err != nil {
		return Frame{}, err
	}
	if plaintext != int64(len(plain.Data)) || plaintext > MaxFramePlaintext {
		return Frame{}, fmt.Errorf("%w: data extents hold %d bytes, the content %d of at most %d",
			ErrFrame, plaintext, len(plain.Data), MaxFramePlaintext)
	}
	frame := Frame{
		Extents:         coded,
		PlaintextBytes:  uint32(plaintext),
		PlaintextDigest: xxhash.Sum64(plain.Data),
	}
	frame.Codec, frame.Payload = e.code(scratch[:0], plain.Data)
	return frame, nil
}

// code is data compressed, or copied where that gains nothing.
func (e *Encoder) code(scratch, data []byte) (Codec, []byte) {
	if len(data) == 0 {
		return CodecNone, scratch
	}
	if need := e.zstd.MaxEncodedSize(len(data)); cap(scratch) < need {
		scratch = make([]byte, 0, need)
	}
	if e.worthwhile(scratch, data) {
		if compressed := e.zstd.EncodeAll(data, scratch); len(compressed) < len(data) {
			return CodecZstd, compressed
		}
	}
	return CodecNone, append(scratch, data...)
}

// worthwhile guesses from pieces of data whether all of it can be compressed; scratch is overwritten.
func (e *Encoder) worthwhile(scratch, data []byte) bool {
	if len(data) < sampledSize {
		return true
	}
	sample, ok := e.samples.Get().(*[samplePieces * samplePiece]byte)
	if !ok {
		sample = new([samplePieces * samplePiece]byte)
	}
	defer e.samples.Put(sample)
	for i := range samplePieces {
		copy(sample[i*samplePiece:][:samplePiece], data[i*(len(data)/samplePieces):])
	}
	return len(e.zstd.EncodeAll(sample[:], scratch)) <= len(sample)-len(sample)/sampleGain
}

// Decoder decodes frames. It may be used concurrently; as many frames are decompressed at a time as there are
// processors, others wait.
type Decoder struct {
	zstd *zstd.Decoder
	err  error // why there is no zstd
}

// NewDecoder makes a Decoder. It starts no goroutine and needs no Close.
func NewDecoder() *Decoder {
	decoder, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(0),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(MaxFramePlaintext),
		zstd.WithDecodeAllCapLimit(true))
	return &Decoder{zstd: decoder, err: err}
}

// Decode calls visit for each extent of f in order, with its content if it is a data extent and nil otherwise.
// The content is valid only until visit returns. Before the first call everything is checked: the extents against
// the disk and the limits, the lengths against each other, the content against its digest; a frame that fails is
// an ErrFrame, and an ErrDigest too where that is what failed. An error of visit ends Decode and is returned as
// it is. Extents may overlap; the later one holds.
func (d *Decoder) Decode(g Geometry, f Frame, visit func(Extent, []byte) error) error {
	if d.err != nil {
		return fmt.Errorf("make a zstd decoder: %w", d.err)
	}
	if f.PlaintextBytes > MaxFramePlaintext {
		return fmt.Errorf("%w: %d bytes of plaintext, at most %d", ErrFrame, f.PlaintextBytes, MaxFramePlaintext)
	}
	if err := checkExtents(g, f.Extents, int64(f.PlaintextBytes)); err != nil {
		return err
	}
	if err := checkPayload(f); err != nil {
		return err
	}
	plaintext := f.Payload
	if f.Codec == CodecZstd {
		decoded := takeBuffer(int(f.PlaintextBytes))
		defer decoded.release()
		if err := d.decompress(decoded.bytes, f.Payload); err != nil {
			return err
		}
		plaintext = decoded.bytes
	}
	if digest := xxhash.Sum64(plaintext); digest != f.PlaintextDigest {
		return fmt.Errorf("%w: %w: %016x, declared is %016x", ErrFrame, ErrDigest, digest, f.PlaintextDigest)
	}
	return visitExtents(g, f.Extents, plaintext, visit)
}

// decompress fills dst with exactly its length; nothing is written beyond it.
func (d *Decoder) decompress(dst, payload []byte) error {
	decoded, err := d.zstd.DecodeAll(payload, dst[:0:len(dst)])
	if err != nil {
		return fmt.Errorf("%w: decompress: %w", ErrFrame, err)
	}
	if len(decoded) != len(dst) {
		return fmt.Errorf("%w: decompressed to %d bytes, declared are %d", ErrFrame, len(decoded), len(dst))
	}
	return nil
}

// visitExtents walks a list that checkExtents has found good for this plaintext.
func visitExtents(g Geometry, coded, plaintext []byte, visit func(Extent, []byte) error) error {
	reader := extentReader{geometry: g, rest: coded}
	for reader.more() {
		extent, err := reader.read()
		if err != nil {
			return err
		}
		var data []byte
		if extent.Kind == ExtentData {
			data, plaintext = plaintext[:extent.Length:extent.Length], plaintext[extent.Length:]
		}
		if err := visit(extent, data); err != nil {
			return err
		}
	}
	return nil
}
