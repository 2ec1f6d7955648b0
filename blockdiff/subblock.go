package blockdiff

// Span is the byte range [Offset, Offset+Length) within a block.
type Span struct {
	Offset, Length int
}

// SubDigests are the xxh64 digests of a block's sub-blocks, each padded with zeros to SubBlockSize. A short
// block's missing sub-blocks count as zeros.
func SubDigests(block []byte) [SubBlocksPerBlock]uint64 {
	var digests [SubBlocksPerBlock]uint64
	for i := range digests {
		digests[i] = paddedDigest(subBlock(block, i), SubBlockSize)
	}
	return digests
}

// Differing are the ranges of block whose sub-block digests differ from the remote ones, ascending, neighbours
// joined. A range begins at a multiple of SubBlockSize and ends at one or at the end of block; what remote says
// about sub-blocks beyond the end of block is ignored.
func Differing(block []byte, remote *[SubBlocksPerBlock]uint64) []Span {
	var spans []Span
	for i := range remote {
		local := subBlock(block, i)
		if len(local) == 0 {
			break
		}
		if paddedDigest(local, SubBlockSize) == remote[i] {
			continue
		}
		offset := i * SubBlockSize
		if last := len(spans) - 1; last >= 0 && spans[last].Offset+spans[last].Length == offset {
			spans[last].Length += len(local)
			continue
		}
		spans = append(spans, Span{Offset: offset, Length: len(local)})
	}
	return spans
}

// subBlock is the i-th sub-block of block: short or empty at its end.
func subBlock(block []byte, i int) []byte {
	start := min(i*SubBlockSize, len(block))
	return block[start:min(start+SubBlockSize, len(block))]
}
