package receive

import (
	"context"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"vmreplica/blockdiff"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// apply takes frames, proofs and the finish in the order they came.
func (s *session) apply(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ended(ctx)
		case request := <-s.inbound:
			var err error
			switch message := request.GetMessage().(type) {
			case *vmreplicav1.TransferRequest_Frame:
				err = s.applyFrame(message.Frame)
			case *vmreplicav1.TransferRequest_Proofs:
				s.proving.Add(-int64(proto.Size(request)))
				err = s.queueProofs(message.Proofs)
			case *vmreplicav1.TransferRequest_Finish:
				return s.finish(ctx, message.Finish)
			}
			if err == nil {
				err = s.proveQueued(ctx)
			}
			if err != nil {
				return err
			}
		}
	}
}

// applyFrame writes a frame's extents and takes the leaves of what the view then holds.
func (s *session) applyFrame(message *vmreplicav1.Frame) error {
	frame := frameOf(message)
	from, to := s.segments.bounds()
	touched := map[int64]bool{}
	err := s.decoder.Decode(s.geometry, frame, func(extent blockdiff.Extent, data []byte) error {
		if extent.Offset < from || extent.End() > to {
			return protocol("frame %d touches bytes %d to %d; %d to %d may be touched", message.GetSequence(),
				extent.Offset, extent.End(), from, to)
		}
		if extent.Kind != blockdiff.ExtentData {
			return s.applyZeros(extent, touched)
		}
		return s.applyData(extent, data, touched)
	})
	// After the writes: a flush that began before them does not count for them.
	s.written.Store(true)
	if err != nil {
		return undecodable(err, message.GetSequence())
	}
	for _, block := range slices.Sorted(maps.Keys(touched)) {
		if err := s.rehash(block); err != nil {
			return err
		}
	}
	s.framing.Add(-frame.CreditBytes())
	s.acknowledge(func(a *vmreplicav1.TransferAcknowledgement) { a.FrameSequence = message.GetSequence() })
	return nil
}

func frameOf(message *vmreplicav1.Frame) blockdiff.Frame {
	return blockdiff.Frame{
		Extents: message.GetExtents(), Codec: blockdiff.Codec(message.GetCodec()),
		PlaintextBytes: message.GetPlaintextBytes(), PlaintextDigest: message.GetPlaintextDigest(),
		Payload: message.GetPayload(),
	}
}

// applyData writes content. Blocks that it covers whole are hashed from it, the others afterwards.
func (s *session) applyData(extent blockdiff.Extent, data []byte, touched map[int64]bool) error {
	if err := s.write(extent, data); err != nil {
		return err
	}
	for block := extent.Offset / blockdiff.BlockSize; block*blockdiff.BlockSize < extent.End(); block++ {
		offset, length := s.geometry.BlockRange(block)
		if offset < extent.Offset || offset+length > extent.End() {
			touched[block] = true
			continue
		}
		delete(touched, block)
		if err := s.setLeaf(block, data[offset-extent.Offset:][:length]); err != nil {
			return err
		}
	}
	return nil
}

// applyZeros makes a range zeros. Blocks that it covers whole need no hashing.
func (s *session) applyZeros(extent blockdiff.Extent, touched map[int64]bool) error {
	if err := s.write(extent, nil); err != nil {
		return err
	}
	first := (extent.Offset + blockdiff.BlockSize - 1) / blockdiff.BlockSize
	end := extent.End() / blockdiff.BlockSize
	if extent.End() == s.geometry.Size() {
		end = s.geometry.Blocks()
	}
	if head := extent.Offset / blockdiff.BlockSize; head < first {
		touched[head] = true
	}
	if tail := (extent.End() - 1) / blockdiff.BlockSize; tail >= end {
		touched[tail] = true
	}
	s.segments.clear(first, end)
	return nil
}

// rehash reads what the view holds of a block now.
func (s *session) rehash(block int64) error {
	offset, length := s.geometry.BlockRange(block)
	content := s.scratch[:length]
	if _, err := s.view.ReadAt(content, offset); err != nil {
		return s.unreadable(err)
	}
	return s.setLeaf(block, content)
}

func (s *session) setLeaf(block int64, content []byte) error {
	leaf := s.prover.ZeroLeaf()
	if !blockdiff.IsZero(content) {
		leaf = s.prover.Leaf(content)
	}
	return s.segments.replace(block, leaf)
}
