package disk

import "iter"

// BlockSpan is Count blocks from First on. Mapped ones may hold data; the others read as zeros.
type BlockSpan struct {
	First, Count int64
	Mapped       bool
}

// Blocks yields count blocks from first on as spans, in order and without a gap; neighbours may be alike. A block
// is blockSize bytes, the disk's last one may be shorter; one that holds data in part is mapped.
func Blocks(r Reader, blockSize, first, count int64) iter.Seq2[BlockSpan, error] {
	return func(yield func(BlockSpan, error) bool) {
		start := first * blockSize
		length := min(count*blockSize, r.Size()-start)
		next, limit := first, first+count // blocks before next were yielded
		for extent, err := range r.Extents(start, length) {
			if err != nil {
				yield(BlockSpan{}, err)
				return
			}
			if extent.Kind != Data {
				continue
			}
			from := max(extent.Offset/blockSize, next)
			to := min((extent.End()+blockSize-1)/blockSize, limit)
			if to <= from {
				continue
			}
			if from > next && !yield(BlockSpan{next, from - next, false}, nil) {
				return
			}
			if !yield(BlockSpan{from, to - from, true}, nil) {
				return
			}
			next = to
		}
		if next < limit {
			yield(BlockSpan{next, limit - next, false}, nil)
		}
	}
}
