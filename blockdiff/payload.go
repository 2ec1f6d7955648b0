package blockdiff

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// checkPayload says whether a frame's payload may hold its plaintext, before any of it is decoded.
func checkPayload(f Frame) error {
	size, payload := int(f.PlaintextBytes), len(f.Payload)
	switch f.Codec {
	case CodecNone:
		if payload != size {
			return fmt.Errorf("%w: payload of %d bytes for %d of plaintext", ErrFrame, payload, size)
		}
		return nil
	case CodecZstd:
		if payload >= size {
			return fmt.Errorf("%w: compressed payload of %d bytes for %d of plaintext", ErrFrame, payload, size)
		}
		return checkZstd(f.Payload, uint64(size))
	default:
		return fmt.Errorf("%w: unknown codec %d", ErrFrame, uint8(f.Codec))
	}
}

// Parts of a zstd frame, as RFC 8878 section 3.1.1 has them.
const (
	zstdBlockHeader = 3
	zstdChecksum    = 4
	zstdRLEBlock    = 1
)

// checkZstd says whether payload is exactly one zstd frame that declares size bytes of content: no dictionary, no
// skippable frame, no larger window, nothing behind it.
func checkZstd(payload []byte, size uint64) error {
	var header zstd.Header
	if err := header.Decode(payload); err != nil {
		return fmt.Errorf("%w: zstd header: %w", ErrFrame, err)
	}
	switch {
	case header.Skippable:
		return fmt.Errorf("%w: zstd payload is a skippable frame", ErrFrame)
	case header.DictionaryID != 0:
		return fmt.Errorf("%w: zstd payload wants dictionary %d", ErrFrame, header.DictionaryID)
	case !header.HasFCS || header.FrameContentSize != size:
		return fmt.Errorf("%w: zstd payload declares %d bytes, the frame %d", ErrFrame, header.FrameContentSize, size)
	case header.WindowSize > MaxFramePlaintext:
		return fmt.Errorf("%w: zstd window of %d bytes, at most %d", ErrFrame, header.WindowSize, MaxFramePlaintext)
	}
	rest, err := skipZstdBlocks(payload[header.HeaderSize:])
	if err != nil {
		return err
	}
	if header.HasCheckSum {
		if len(rest) < zstdChecksum {
			return fmt.Errorf("%w: zstd payload truncated", ErrFrame)
		}
		rest = rest[zstdChecksum:]
	}
	if len(rest) != 0 {
		return fmt.Errorf("%w: %d bytes behind the zstd payload", ErrFrame, len(rest))
	}
	return nil
}

// skipZstdBlocks is what follows the last block of a zstd frame.
func skipZstdBlocks(blocks []byte) ([]byte, error) {
	for last := false; !last; {
		if len(blocks) < zstdBlockHeader {
			return nil, fmt.Errorf("%w: zstd payload truncated", ErrFrame)
		}
		header := int(blocks[0]) | int(blocks[1])<<8 | int(blocks[2])<<16
		last = header&1 != 0
		size := header >> 3
		if header>>1&3 == zstdRLEBlock {
			size = 1
		}
		blocks = blocks[zstdBlockHeader:]
		if size > len(blocks) {
			return nil, fmt.Errorf("%w: zstd payload truncated", ErrFrame)
		}
		blocks = blocks[size:]
	}
	return blocks, nil
}
