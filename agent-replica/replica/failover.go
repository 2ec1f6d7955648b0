package replica

import (
	"context"
	"slices"
	"time"

	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/merge"
	"vmreplica/agent-replica/storage"
	"vmreplica/internal/api"
	"vmreplica/internal/failure"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// failoverService makes replicas' disks their machines'. What it begins the merger brings to its end.
type failoverService struct {
	vmreplicav1.UnimplementedFailoverServiceServer
	registry *chain.Registry
	storage  *storage.Storage
	merger   *merge.Merger
	receiver Receiver
	requests *requests
}

// StartFailover begins a failover durably, ends the primary's streams and answers at once.
func (s *failoverService) StartFailover(ctx context.Context, r *vmreplicav1.StartFailoverRequest) (*vmreplicav1.Failover, error) {
	if r.GetValidateOnly() {
		return s.plan(r)
	}
	return rememberAfter(ctx, s.requests, r, r.GetRequestId(), new(vmreplicav1.Failover),
		func() (*vmreplicav1.Failover, error) { return s.start(r) })
}

func (s *failoverService) start(r *vmreplicav1.StartFailoverRequest) (*vmreplicav1.Failover, error) {
	record, err := s.registry.VM(r.GetVm()).StartFailover(r.GetRecoveryPoint(), time.Now().UTC())
	if err != nil {
		return nil, err
	}
	s.receiver.Refuse(record.VM, failure.Find(record.CheckFailover()))
	return s.show(record), nil
}

// plan says what a failover would do. One that was begun is shown as it is.
func (s *failoverService) plan(r *vmreplicav1.StartFailoverRequest) (*vmreplicav1.Failover, error) {
	record, err := s.registry.Table().Get(r.GetVm())
	if err != nil {
		return nil, err
	}
	begun := record.Failover != nil
	if err := record.StartFailover(r.GetRecoveryPoint(), time.Now().UTC()); err != nil {
		return nil, err
	}
	planned := s.show(record)
	if !begun {
		planned.StartTime = nil
	}
	return planned, nil
}

// GetFailover shows how one stands; when only an operator can help it to its end, the failure that says how.
func (s *failoverService) GetFailover(_ context.Context, r *vmreplicav1.GetFailoverRequest) (*vmreplicav1.Failover, error) {
	record, err := s.registry.Table().Get(r.GetVm())
	if err != nil {
		return nil, err
	}
	if record.Failover == nil {
		return nil, failure.New(failure.NotFound, failure.ReasonNotFound, "the replica was not failed over to").On(record.VM, "")
	}
	if status := s.merger.Status(record.VM); record.FailingOver() && status.Final {
		return nil, failure.Locate(status.Problem, record.VM, status.Disk)
	}
	return s.show(record), nil
}

// show is a failover on the wire.
func (s *failoverService) show(record chain.Record) *vmreplicav1.Failover {
	f := record.Failover
	shown := &vmreplicav1.Failover{
		Vm: record.VM, RecoveryPoint: string(f.Point.ID), PointTime: api.TimeToProto(f.Point.Time), Term: f.Term,
		StartTime: api.TimeToProto(f.StartTime), EndTime: api.TimeToProto(f.EndTime), Notes: f.Notes,
	}
	status := s.merger.Status(record.VM)
	merged, total := merging(record, status)
	shown.MergedBytes, shown.MergeTotalBytes = f.MergedBytes+merged, f.MergedBytes+total
	if record.FailingOver() {
		shown.MergeTotalBytes += s.toMerge(record)
		shown.Notes = append(shown.Notes, waitsFor(s.registry.VM(record.VM), status)...)
	} else {
		shown.Notes = append(shown.Notes, "Start the machine on this host with these disks and no others of it anywhere; "+
			"vmreplica remove "+record.VM+" --force ends the replication here and leaves the disks.")
	}
	paths := s.registry.Paths(record)
	for i, d := range record.Disks {
		shown.Disks = append(shown.Disks, &vmreplicav1.FailoverDisk{
			Id: d.ID, Path: paths[i], Format: string(d.Base.ImageFormat()),
		})
		shown.QemuArguments = append(shown.QemuArguments, qemuArguments(i, d, paths[i])...)
	}
	return shown
}

// merging is how far the present merge has come, in bytes.
func merging(record chain.Record, status merge.Status) (merged, total int64) {
	d := record.Disk(status.Disk)
	if d == nil || !slices.ContainsFunc(d.Layers, func(l chain.Layer) bool { return l.State == chain.Merging }) {
		return 0, 0
	}
	return status.Merged, max(status.Merged, status.Total)
}

// toMerge is about what the merges that have not begun will copy, in bytes.
func (s *failoverService) toMerge(record chain.Record) (total int64) {
	for _, d := range record.Disks {
		for _, layer := range d.Layers {
			if layer.State != chain.Merging && record.Failover.Keeps(&d, layer) {
				total += max(0, allocated(s.storage, layer.File))
			}
		}
	}
	return total
}

// waitsFor says what a failover that has not ended waits for but the merges themselves.
func waitsFor(vm *chain.VM, status merge.Status) []string {
	var notes []string
	for _, reader := range vm.Readers() {
		notes = append(notes, "It waits for the end of "+reader.Who+", which has read since "+reader.Since.Format(time.RFC3339)+".")
	}
	if status.Problem != nil {
		notes = append(notes, "It waits: "+status.Problem.Error())
	}
	return notes
}
