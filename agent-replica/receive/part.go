package receive

import (
	"errors"
	"sync"
	"sync/atomic"

	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/storage"
	"vmreplica/blockdiff"
	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// part is a disk's part of an open transfer, as the one stream that holds its session works on it.
type part struct {
	vm       *chain.VM
	diskID   string
	transfer replication.ID
	kind     replication.ResyncKind
	number   uint64
	limits   Limits
	space    Space
	// checkRoom refuses to go on when the entry's quota is used up.
	checkRoom func(chain.Record) error
	// progressed is called when what was received is durable.
	progressed func()

	view   disk.Reader
	target disk.Disk
	// balloon is the file that holds the space of the merge into merged; empty when nothing will be merged.
	balloon  string
	merged   disk.Disk
	geometry blockdiff.Geometry
	prover   *blockdiff.Prover
	decoder  *blockdiff.Decoder

	// saving is held by whoever flushes and then says in the record that this is done.
	saving sync.Mutex
	// written says that the target may hold what is not flushed, also by an earlier session, whose stream broke before
	// it flushed; spoiled that a flush has failed, so that the open target is of no more use.
	written, spoiled atomic.Bool
	// framing is in bytes of frames that were received and not worked off.
	framing atomic.Int64
}

// part is that of a disk as the record has it.
func (r *Receiver) part(t *transfer, record chain.Record, session chain.Session) (*part, error) {
	opened, err := t.vm.Disk(session.Disk)
	if err != nil {
		return nil, err
	}
	d := record.Disk(session.Disk)
	geometry, err := blockdiff.NewGeometry(d.SizeBytes)
	if err != nil {
		return nil, err
	}
	prover, err := blockdiff.NewProver(record.Transfer.Proof)
	if err != nil {
		return nil, err
	}
	p := &part{
		vm: t.vm, diskID: session.Disk, transfer: record.Transfer.ID, kind: record.Transfer.Kind, number: session.Number,
		limits: r.Limits, space: r.Space, checkRoom: r.checkRoom,
		progressed: func() { r.noteProgress(t.vm.Name()) },
		view:       opened.View(), target: opened.Top(),
		geometry: geometry, prover: prover, decoder: blockdiff.NewDecoder(),
	}
	p.written.Store(true)
	if top := len(d.Layers) - 1; top >= 0 && d.Layers[top].State == chain.Receiving && d.TargetFile(top) != "" {
		p.balloon, p.merged = chain.BalloonFile(d.Layers[top].File), opened.Target(d, top)
	}
	return p, nil
}

// verifying says that nothing is written.
func (p *part) verifying() bool { return p.kind == replication.KindVerify }

// flush makes the target durable and holds the space of its merge, each time anew: a flush says nothing of the space
// when the one before found none. A flush that failed for want of space left the file as it was, and is made again on
// the file opened anew; a failed sync ends the transfer for good. Nothing counts as flushed after a flush that failed.
// The caller holds saving.
func (p *part) flush() error {
	if p.verifying() {
		return nil
	}
	if p.spoiled.Load() {
		return failure.New(failure.Internal, failure.ReasonStorageFailed, "an earlier flush has failed")
	}
	if p.written.Swap(false) {
		if err := p.target.Flush(); err != nil {
			p.spoiled.Store(true)
			return storage.Failure(err)
		}
	}
	if p.balloon == "" {
		return nil
	}
	return holdRoom(p.space.Balloon(p.balloon), p.target, p.merged)
}

// failTransfer ends the transfer for good when err leaves unknown what the target holds: a sync has failed, whoever
// asked for it, or a flush for another reason than want of space.
func (p *part) failTransfer(err error) error {
	full := failure.Find(err).Reason == failure.ReasonStorageFull
	if p.verifying() || !errors.Is(err, durable.ErrSync) && (!p.spoiled.Load() || full) {
		return err
	}
	_, recordErr := p.vm.Update(func(r *chain.Record) error { return r.FailTransfer(p.transfer, err.Error()) })
	if recordErr != nil {
		return recordErr
	}
	return err
}

// write applies one extent of a frame to the target; content is that of a data extent.
func (p *part) write(extent blockdiff.Extent, content []byte) error {
	var err error
	switch extent.Kind {
	case blockdiff.ExtentData:
		_, err = p.target.WriteAt(content, extent.Offset)
	case blockdiff.ExtentUnmapped:
		err = p.target.Unmap(extent.Offset, extent.Length)
	default:
		err = p.target.Zero(extent.Offset, extent.Length)
	}
	return storage.Failure(err)
}

// undecodable is what makes a frame's decoding fail: a fault of the frame is the primary's.
func undecodable(err error, sequence uint64) error {
	if errors.Is(err, blockdiff.ErrFrame) {
		return failure.New(failure.Corrupt, failure.ReasonProtocol, "frame %d: %w", sequence, err)
	}
	return err
}
