package replica

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/merge"
	"vmreplica/internal/api"
	"vmreplica/internal/failure"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// failoverService fails over to this replica.
type failoverService struct {
	vmreplicav1.UnimplementedFailoverServiceServer
	registry *chain.Registry
	merger   *merge.Merger
	receiver Receiver
	requests *requests
}

// StartFailover raises the term, discards what has not committed or follows the point, and lets the disks go when what is
// left is merged.
func (s *failoverService) StartFailover(ctx context.Context, r *vmreplicav1.StartFailoverRequest) (*vmreplicav1.Failover, error) {
	vm := s.registry.VM(r.GetVm())
	record, err := vm.Record()
	if err != nil {
		return nil, err
	}
	if r.GetValidateOnly() {
		point, err := record.FailoverPoint(r.GetRecoveryPoint())
		if err != nil {
			return nil, err
		}
		return s.planned(record, point), nil
	}
	return rememberAfter(ctx, s.requests, r, r.GetRequestId(), new(vmreplicav1.Failover), func() (*vmreplicav1.Failover, error) {
		if _, err := record.FailoverPoint(r.GetRecoveryPoint()); err != nil {
			return nil, err
		}
		s.receiver.Refuse(r.GetVm(), failure.New(failure.Precondition, failure.ReasonFailedOver, "the replica is failed over to").
			Try("Another host runs the machine by now: this primary must not send any more."))
		record, err := vm.StartFailover(r.GetRecoveryPoint(), time.Now().UTC())
		if err != nil {
			return nil, err
		}
		// A stream that was opened before the term was raised ends with what it had.
		s.receiver.Supersede(r.GetVm(), record.Term)
		return s.shown(record), nil
	})
}

// GetFailover shows how a failover stands.
func (s *failoverService) GetFailover(_ context.Context, r *vmreplicav1.GetFailoverRequest) (*vmreplicav1.Failover, error) {
	record, err := s.registry.Table().Get(r.GetVm())
	if err != nil {
		return nil, err
	}
	if record.Failover == nil {
		return nil, failure.New(failure.NotFound, failure.ReasonNotFound, "the replica was not failed over to").On(record.VM, "").
			Try("vmreplica failover %s does that; --dry-run says what it would do.", record.VM)
	}
	return s.shown(record), nil
}

// planned is what a failover would do.
func (s *failoverService) planned(record chain.Record, point chain.Point) *vmreplicav1.Failover {
	plan := s.disks(record)
	plan.Vm, plan.Term = record.VM, record.Term+1
	plan.RecoveryPoint, plan.PointTime = string(point.ID), api.TimeToProto(point.Time)
	if record.Transfer != nil {
		plan.Notes = append(plan.Notes, fmt.Sprintf("Transfer %s has not committed and is discarded.", record.Transfer.ID.Short()))
	}
	for _, later := range record.Points() {
		if later.Time.After(point.Time) {
			plan.Notes = append(plan.Notes, fmt.Sprintf("The later recovery point %s of %s is deleted.", later.ID.Short(),
				later.Time.Format(time.RFC3339)))
		}
	}
	plan.Notes = append(plan.Notes, "The primary is refused from then on.", "All recovery points are merged or deleted.")
	return plan
}

func (s *failoverService) shown(record chain.Record) *vmreplicav1.Failover {
	f, merging := record.Failover, s.merger.Status(record.VM)
	shown := s.disks(record)
	shown.Vm, shown.Term = record.VM, record.Term
	shown.RecoveryPoint, shown.PointTime = string(f.Point.ID), api.TimeToProto(f.Point.Time)
	shown.StartTime, shown.EndTime = api.TimeToProto(f.StartTime), api.TimeToProto(f.EndTime)
	shown.MergedBytes, shown.MergeTotalBytes = merging.Merged, merging.Total
	shown.Notes = []string{"The primary is refused; see that the machine does not run there as well."}
	if problem := merging.Problem; problem != nil {
		shown.Notes = append(shown.Notes, "The merge waits: "+problem.Message+". "+problem.Remedy)
	}
	return shown
}

// disks are the paths of the disks and how QEMU opens them.
func (s *failoverService) disks(record chain.Record) *vmreplicav1.Failover {
	shown := &vmreplicav1.Failover{}
	for i, place := range s.registry.Paths(record) {
		d := record.Disks[i]
		driver := "file"
		if d.Base.Device != "" {
			driver = "host_device"
		}
		format := string(d.Base.ImageFormat())
		shown.Disks = append(shown.Disks, &vmreplicav1.FailoverDisk{Id: d.ID, Path: place, Format: format})
		if format == "vhd" {
			format = "vpc"
		}
		node := fmt.Sprintf("disk%d", i)
		blockdev, err := json.Marshal(map[string]any{
			"node-name": node, "driver": format, "discard": "unmap", "file": map[string]string{"driver": driver, "filename": place},
		})
		if err != nil {
			continue // strings alone cannot fail
		}
		shown.QemuArguments = append(shown.QemuArguments, "-blockdev "+shellQuote(string(blockdev)),
			"-device "+shellQuote(fmt.Sprintf("virtio-blk-pci,drive=%s,id=%s-device,logical_block_size=%d", node, node, d.LogicalSectorSize)))
	}
	return shown
}

// shellQuote makes one word of text for a POSIX shell.
func shellQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
