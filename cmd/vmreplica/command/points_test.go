package command_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"vmreplica/cmd/vmreplica/command"
	"vmreplica/internal/failure"
	v1 "vmreplica/proto/vmreplica/v1"
)

func aPoint(latest bool) *v1.RecoveryPoint {
	return &v1.RecoveryPoint{Id: id, Time: timestamppb.New(now.Add(-time.Hour)), Latest: latest, AllocatedBytes: 5 << 20, Readers: 2}
}

func TestRecoveryPoints(t *testing.T) {
	a := newAgent(t, "replica")
	answer(a, "Points", func(*v1.ListRecoveryPointsRequest) (*v1.ListRecoveryPointsResponse, error) {
		return &v1.ListRecoveryPointsResponse{RecoveryPoints: []*v1.RecoveryPoint{aPoint(true)}}, nil
	})
	a.run("recovery-points", "web01").expect(t, 0, "0123456789ab  2026-11-22 20:00:00 +01:00  1h ago  latest  5.0 MiB  2\n", "")
	a.run("recovery-points", "web01", "-o", "json").expect(t, 0, `"latest": true`, "")
	answer(a, "Point", func(*v1.GetRecoveryPointRequest) (*v1.RecoveryPoint, error) { return aPoint(false), nil })
	answer(a, "DeletePoint", func(*v1.DeleteRecoveryPointRequest) (*v1.DeleteRecoveryPointResponse, error) {
		return &v1.DeleteRecoveryPointResponse{}, nil
	})
	a.run("recovery-points", "web01", "--delete", "0123").expect(t, 0, "The recovery point "+id+" of the VM web01, of 2026-11-22 20:00:00 +01:00, is deleted", "")
	if got := asked[*v1.DeleteRecoveryPointRequest](a)[0]; got.GetId() != id || got.GetVm() != "web01" || got.GetRequestId() == "" {
		t.Errorf("asked for %v", got)
	}
	answer(a, "Point", func(*v1.GetRecoveryPointRequest) (*v1.RecoveryPoint, error) { return aPoint(true), nil })
	a.run("recovery-points", "web01", "--delete", "0123").expect(t, 2, "", "cannot be deleted")
	if n := len(asked[*v1.DeleteRecoveryPointRequest](a)); n != 1 {
		t.Errorf("deleted %d times", n)
	}
	answer(a, "Points", func(*v1.ListRecoveryPointsRequest) (*v1.ListRecoveryPointsResponse, error) {
		return &v1.ListRecoveryPointsResponse{}, nil
	})
	a.run("recovery-points", "web01").expect(t, 0, "no transfer has committed", "")
	fail[*v1.GetRecoveryPointRequest, *v1.RecoveryPoint](a, "Point", failure.New(failure.NotFound, failure.ReasonNotFound, "two begin so"))
	a.run("recovery-points", "web01", "--delete", "0").expect(t, 3, "", "two begin so")
}

// failing over sets what a failover does: a plan first, then some states of it.
func failingOver(a *fakeAgent, states ...*v1.Failover) {
	answer(a, "Failover", func(r *v1.StartFailoverRequest) (*v1.Failover, error) {
		begun := &v1.Failover{Vm: "web01", RecoveryPoint: id, PointTime: timestamppb.New(now.Add(-time.Minute)), Term: 2, MergeTotalBytes: 8 << 20}
		if r.GetValidateOnly() {
			begun.Notes = []string{"2 later recovery points are deleted."}
		}
		return begun, nil
	})
	answer(a, "GetFailover", func(*v1.GetFailoverRequest) (*v1.Failover, error) {
		newest := states[0]
		if states = states[1:]; newest == nil {
			return nil, status.Error(codes.Unavailable, "the agent restarts")
		}
		return newest, nil
	})
}

func failedOver() *v1.Failover {
	return &v1.Failover{
		Vm: "web01", RecoveryPoint: id, PointTime: timestamppb.New(now.Add(-time.Minute)), Term: 2, EndTime: timestamppb.New(now),
		Disks:         []*v1.FailoverDisk{{Id: "root", Path: "/srv/p1/web01/root", Format: "raw"}},
		QemuArguments: []string{"-drive file=/srv/p1/web01/root,format=raw"}, Notes: []string{"Start it on this host."},
	}
}

func TestFailoverWaitsForTheMerge(t *testing.T) {
	a := newAgent(t, "replica")
	merging := &v1.Failover{Vm: "web01", RecoveryPoint: id, MergedBytes: 4 << 20, MergeTotalBytes: 8 << 20}
	failingOver(a, merging, nil, nil, nil, nil, failedOver())
	got := a.run("failover", "web01", "--yes", "--point", "0123")
	got.expect(t, 0, "The VM web01 is failed over to 2026-11-22 20:59:00 +01:00 (1m ago), in term 2.\n", "merging: 50% of 8.0 MiB")
	for _, want := range []string{"root  raw     /srv/p1/web01/root\n", "QEMU's arguments\n-drive file=", "Start it on this host.\n"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("%q is not in %s", want, got.out)
		}
	}
	if !strings.Contains(got.err, "connection lost; the failover goes on") || !strings.Contains(got.err, "connected again") {
		t.Errorf("got %s", got.err)
	}
	requests := asked[*v1.StartFailoverRequest](a)
	if len(requests) != 1 || requests[0].GetRecoveryPoint() != "0123" || requests[0].GetValidateOnly() || requests[0].GetRequestId() == "" {
		t.Errorf("asked for %v", requests)
	}
	failingOver(a, failedOver())
	a.run("failover", "web01", "--yes", "-o", "json").expect(t, 0, `"qemuArguments": [`, "")
}

func TestFailoverIsConfirmed(t *testing.T) {
	a := newAgent(t, "replica")
	failingOver(a, failedOver(), failedOver())
	a.run("failover", "web01").expect(t, 2, "", "give --yes")
	a.run("failover", "web01", "--dry-run").expect(t, 0, "A failover of the VM web01 takes the recovery point 0123456789ab of 2026-11-22 20:59:00 +01:00 (1m ago).\n  2 later recovery points are deleted.\n", "")
	for _, answer := range []string{"no\n", "y\n", "\n", ""} {
		a.runAsked(strings.NewReader(answer), "failover", "web01").expect(t, 1, "", "it was not confirmed, and nothing was changed")
	}
	for _, request := range asked[*v1.StartFailoverRequest](a) {
		if !request.GetValidateOnly() {
			t.Fatalf("asked for %v", request)
		}
	}
	a.runAsked(strings.NewReader("yes\n"), "failover", "web01", "--point", "0123").
		expect(t, 0, "is failed over", "2 later recovery points are deleted.\n  8.0 MiB are merged before the disks can be used.\n  The primary is refused from then on. This cannot be undone.\nFail over? ")
	a.runAsked(strings.NewReader("yes\n"), "failover", "web01").expect(t, 0, "is failed over", "")
	requests := asked[*v1.StartFailoverRequest](a)
	last, newest := requests[len(requests)-3], requests[len(requests)-1]
	if last.GetValidateOnly() || last.GetRecoveryPoint() != id || newest.GetValidateOnly() || newest.GetRecoveryPoint() != "" {
		t.Errorf("asked for %v and %v", last, newest)
	}
	for i, request := range requests[1:] {
		if before := requests[i]; before.GetValidateOnly() != request.GetValidateOnly() && before.GetRequestId() == request.GetRequestId() {
			t.Errorf("a plan and a failover are one request: %v, %v", before, request)
		}
	}
}

func TestFailoversThatEndOtherwise(t *testing.T) {
	a := newAgent(t, "replica")
	failingOver(a)
	fail[*v1.GetFailoverRequest, *v1.Failover](a, "GetFailover", failure.New(failure.Corrupt, failure.ReasonStorageFailed, "the base cannot be read").On("web01", "root"))
	a.run("failover", "web01", "--yes").expect(t, 7, "", "VM web01, disk root: the base cannot be read (STORAGE_FAILED)")
	reader, writer := io.Pipe()
	defer writer.Close()
	ctx, interrupt := contextOf(t)
	answer(a, "GetFailover", func(*v1.GetFailoverRequest) (*v1.Failover, error) {
		interrupt()
		return &v1.Failover{Vm: "web01", RecoveryPoint: id}, nil
	})
	a.runContext(ctx, "failover", "web01", "--yes").expect(t, 130, "", "Interrupted: the failover of the VM web01 goes on.\n  Wait for it:  vmreplica failover web01 --point "+id+" --yes\n")
	// Nobody answers, and then the program is ended.
	ctx, interrupt = contextOf(t)
	answer(a, "Failover", func(r *v1.StartFailoverRequest) (*v1.Failover, error) {
		time.AfterFunc(100*time.Millisecond, interrupt)
		return &v1.Failover{Vm: "web01", RecoveryPoint: id}, nil
	})
	runStreams(ctx, a.environment(), command.Streams{In: reader, Interactive: true}, "failover", "web01").expect(t, 130, "", "Fail over? ")
	_ = reader.CloseWithError(errors.New("no terminal any more"))
	a.runAsked(reader, "failover", "web01").expect(t, 1, "", "not confirmed")
	fail[*v1.StartFailoverRequest, *v1.Failover](a, "Failover", failure.New(failure.Precondition, failure.ReasonFailedOver, "to another point already"))
	a.run("failover", "web01", "--yes").expect(t, 4, "", "to another point already")
}
