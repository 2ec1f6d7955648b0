package receive

import (
	"context"
	"encoding/binary"

	"vmreplica/blockdiff"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// refine answers what was asked for, a message at a time.
func (s *session) refine(ctx context.Context) error {
	buffer := make([]byte, blockdiff.BlockSize)
	for {
		select {
		case <-ctx.Done():
			return ended(ctx)
		case <-s.finishing:
			return nil
		case blocks := <-s.asked:
			answer := &vmreplicav1.Refinements{Blocks: blocks}
			for _, block := range blocks {
				offset, length := s.geometry.BlockRange(block)
				if _, err := s.view.ReadAt(buffer[:length], offset); err != nil {
					return s.unreadable(err)
				}
				for _, digest := range blockdiff.SubDigests(buffer[:length]) {
					answer.Digests = binary.LittleEndian.AppendUint64(answer.Digests, digest)
				}
			}
			s.refining.Add(-int64(len(blocks)))
			response := &vmreplicav1.TransferResponse{
				Message: &vmreplicav1.TransferResponse_Refinements{Refinements: answer},
			}
			if err := s.answer(ctx, response); err != nil {
				return err
			}
		}
	}
}
