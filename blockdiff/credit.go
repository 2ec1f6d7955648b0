package blockdiff

// CreditBytes is what a run takes from the credit for digests: the bytes of image that were read for it, and one
// block for a run of holes however long, so that the number of runs under way is bounded too.
func (r Run) CreditBytes() int64 {
	if r.Kind == RunHole {
		return BlockSize
	}
	return r.Count * BlockSize
}

// CreditBytes is what a frame takes from the credit for frames: its plaintext, and at least one block, so that
// the number of frames under way is bounded too.
func (f Frame) CreditBytes() int64 { return max(int64(f.PlaintextBytes), BlockSize) }
