package command_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"vmreplica/internal/failure"
	v1 "vmreplica/proto/vmreplica/v1"
)

const id = "0123456789abcdef0123456789abcdef"

func resync(state v1.ResyncState) *v1.Resync {
	return &v1.Resync{Id: id, Vm: "web01", Kind: v1.ResyncKind_RESYNC_KIND_RESYNC, State: state, Disks: []*v1.ResyncDisk{{
		Id: "root", Path: "/i/root.img", SizeBytes: 1 << 30, Progress: &v1.TransferProgress{SizeBytes: 1 << 30, ComparedBytes: 1 << 29},
	}}}
}

// watches sets what the n-th watch of a resync does.
func watches(a *fakeAgent, do ...func(grpc.ServerStreamingServer[v1.Resync]) error) {
	n := 0
	answer(a, "WatchResync", func(*v1.WatchResyncRequest) (func(grpc.ServerStreamingServer[v1.Resync]) error, error) {
		n++
		return do[min(n, len(do))-1], nil
	})
}

// sends is a watch that sends states and ends with err.
func sends(err error, states ...*v1.Resync) func(grpc.ServerStreamingServer[v1.Resync]) error {
	return func(stream grpc.ServerStreamingServer[v1.Resync]) error {
		for _, state := range states {
			if err := stream.Send(state); err != nil {
				return err
			}
		}
		return err
	}
}

func begins(a *fakeAgent) {
	answer(a, "Start", func(*v1.StartResyncRequest) (*v1.Resync, error) {
		return resync(v1.ResyncState_RESYNC_STATE_SCHEDULED), nil
	})
}

func TestResyncWithoutWaiting(t *testing.T) {
	a := newAgent(t, "primary")
	begins(a)
	a.run("resync", "web01", "--force", "--restart").expect(t, 0,
		"The resync "+id+" of the VM web01 has begun.\nFollow it with: vmreplica get web01 --watch\n", "")
	answer(a, "Start", func(r *v1.StartResyncRequest) (*v1.Resync, error) {
		scheduled := resync(v1.ResyncState_RESYNC_STATE_SCHEDULED)
		scheduled.StartTime = r.GetStartTime()
		return scheduled, nil
	})
	a.run("start-initial", "web01", "--at", "22:30").expect(t, 0, "begins at 2026-11-22 22:30:00 +01:00 (in 1h).", "")
	a.run("resync", "web01", "--at", "yesterday").expect(t, 2, "", "RFC 3339")
	got := asked[*v1.StartResyncRequest](a)
	if len(got) != 2 || !got[0].GetForce() || !got[0].GetRestart() || got[0].GetStartTime() != nil || got[0].GetRequestId() == "" ||
		got[1].GetKind() != v1.ResyncKind_RESYNC_KIND_INITIAL || !got[1].GetStartTime().AsTime().Equal(now.Add(90*time.Minute)) {
		t.Errorf("asked for %v", got)
	}
}

func TestWaitingOutlastsLostConnectionsAndRestarts(t *testing.T) {
	a := newAgent(t, "primary")
	begins(a)
	comparing, committed, done := resync(v1.ResyncState_RESYNC_STATE_COMPARING), resync(v1.ResyncState_RESYNC_STATE_COMMITTED), resync(v1.ResyncState_RESYNC_STATE_DONE)
	done.Result = "proven equal"
	stopped := make(chan struct{})
	watches(a,
		sends(failure.New(failure.Unreachable, failure.ReasonShuttingDown, "the agent is stopping"), comparing),
		sends(nil, comparing),
		func(stream grpc.ServerStreamingServer[v1.Resync]) error {
			if err := stream.Send(comparing); err != nil {
				return err
			}
			close(stopped)
			<-stream.Context().Done()
			return stream.Context().Err()
		},
		sends(nil, committed, done),
	)
	restarted := make(chan struct{})
	go func() {
		defer close(restarted)
		<-stopped
		a.server.Stop()
		a.serve(a.address)
	}()
	got := a.run("resync", "web01", "--wait", "-o", "json")
	<-restarted
	got.expect(t, 0, `"result": "proven equal"`, "web01: comparing\n")
	for _, want := range []string{"connection lost; the resync goes on, and the agent is asked again: the agent is stopping\n",
		"and the agent is asked again: the agent ended the watch\n", "connected again after 1 attempt\n", "web01: committed", "web01: done\n"} {
		if !strings.Contains(got.err, want) {
			t.Errorf("%q is not in\n%s", want, got.err)
		}
	}
	if !strings.HasPrefix(got.out, "{\n  \"id\": \""+id) {
		t.Errorf("got %s", got.out)
	}
	for _, request := range asked[*v1.WatchResyncRequest](a) {
		if request.GetId() != id || request.GetVm() != "web01" {
			t.Errorf("watched %v", request)
		}
	}
}

func TestAwaitedWorkThatFails(t *testing.T) {
	a := newAgent(t, "primary")
	begins(a)
	failed := resync(v1.ResyncState_RESYNC_STATE_FAILED)
	failed.Kind, failed.Reason, failed.Result = v1.ResyncKind_RESYNC_KIND_VERIFY, failure.ReasonProofFailed, "the replica differs: 1 blocks, 4096 bytes"
	watches(a, sends(nil, failed))
	a.run("verify", "web01", "--wait").expect(t, 7, "Verify 0123456789ab of the VM web01: Failed: the replica differs",
		"error: VM web01: the verify ended as Failed: the replica differs: 1 blocks, 4096 bytes (PROOF_FAILED)\n  Bring the replica back in step with: vmreplica resync web01 --wait\n")
	watches(a, sends(nil, resync(v1.ResyncState_RESYNC_STATE_CANCELLED)))
	a.run("resync", "web01", "--wait").expect(t, 7, "", "ended as Cancelled")
	fail[*v1.WatchResyncRequest, func(grpc.ServerStreamingServer[v1.Resync]) error](a, "WatchResync",
		failure.New(failure.NotFound, failure.ReasonNotFound, "no such resync"))
	a.run("resync", "web01", "--wait").expect(t, 3, "", "no such resync")
}

func TestInterruptedWaitingLeavesTheResyncRunning(t *testing.T) {
	a := newAgent(t, "primary")
	begins(a)
	ctx, interrupt := context.WithCancel(t.Context())
	watches(a, func(stream grpc.ServerStreamingServer[v1.Resync]) error {
		interrupt()
		<-stream.Context().Done()
		return stream.Context().Err()
	})
	a.runContext(ctx, "resync", "web01", "--wait").expect(t, 130, "",
		"Interrupted: the resync of the VM web01 goes on.\n  Follow it:  vmreplica get web01 --watch\n  End it:     vmreplica cancel-resync web01\n")
	if got := asked[*v1.CancelResyncRequest](a); len(got) != 0 {
		t.Errorf("it was cancelled: %v", got)
	}
	answer(a, "Start", func(*v1.StartResyncRequest) (*v1.Resync, error) { return nil, context.Canceled })
	again, interruptAgain := context.WithCancel(t.Context())
	interruptAgain()
	a.runContext(again, "resync", "web01").expect(t, 130, "", "whether the agent began is not known")
}

func TestCancelAndHistory(t *testing.T) {
	a := newAgent(t, "primary")
	answer(a, "Cancel", func(*v1.CancelResyncRequest) (*v1.Resync, error) {
		return resync(v1.ResyncState_RESYNC_STATE_CANCELLED), nil
	})
	a.run("cancel-resync", "web01").expect(t, 0, "is cancelled; the replica's content is as it was", "")
	answer(a, "Resyncs", func(r *v1.ListResyncsRequest) (*v1.ListResyncsResponse, error) {
		if r.GetPageToken() == "" {
			return &v1.ListResyncsResponse{Resyncs: []*v1.Resync{resync(v1.ResyncState_RESYNC_STATE_DONE)}, NextPageToken: "n"}, nil
		}
		return &v1.ListResyncsResponse{Resyncs: []*v1.Resync{resync(v1.ResyncState_RESYNC_STATE_FAILED)}}, nil
	})
	got := a.run("resyncs", "web01")
	got.expect(t, 0, " Failed ", "")
	if strings.Count(got.out, "0123456789ab ") != 2 {
		t.Errorf("got %s", got.out)
	}
}

// shows is a watch of VMs that sends updates and ends with err.
func shows(err error, updates ...*v1.WatchReplicationsResponse) func(grpc.ServerStreamingServer[v1.WatchReplicationsResponse]) error {
	return func(stream grpc.ServerStreamingServer[v1.WatchReplicationsResponse]) error {
		for _, update := range updates {
			if err := stream.Send(update); err != nil {
				return err
			}
		}
		return err
	}
}

func is(name string, state v1.ReplicationState) *v1.WatchReplicationsResponse {
	return &v1.WatchReplicationsResponse{Update: &v1.WatchReplicationsResponse_Replication{Replication: vm(name, state, v1.Health_HEALTH_NORMAL)}}
}

func TestGetWatch(t *testing.T) {
	a := newAgent(t, "primary")
	complete := &v1.WatchReplicationsResponse{Update: &v1.WatchReplicationsResponse_SnapshotComplete{SnapshotComplete: true}}
	deleted := &v1.WatchReplicationsResponse{Update: &v1.WatchReplicationsResponse_Deleted{Deleted: "web01"}}
	do := shows(nil, complete)
	n := 0
	answer(a, "Watch", func(*v1.WatchReplicationsRequest) (func(grpc.ServerStreamingServer[v1.WatchReplicationsResponse]) error, error) {
		if n++; n == 2 {
			return shows(failure.New(failure.Unreachable, failure.ReasonShuttingDown, "stopping"), is("web01", 1), complete), nil
		}
		return do, nil
	})
	a.run("get", "web01", "--watch").expect(t, 3, "", "VM web01: it is not replicated here")
	do = shows(nil, is("web01", 3), complete, deleted)
	got := a.run("get", "web01", "--watch")
	got.expect(t, 0, "web01  ReadyForInitialReplication  Idle  Normal  -\n", "The VM web01 is not replicated any more.\n")
	if !strings.Contains(got.out, "web01  Replicating  Idle") || !strings.Contains(got.err, "connection lost; replication goes on") ||
		!strings.Contains(got.err, "connected again") {
		t.Errorf("got %s%s", got.out, got.err)
	}
	// What a later snapshot does not name is gone.
	n = 1
	do = shows(nil, complete)
	a.run("get", "web01", "-w", "-o", "json").expect(t, 0, `{"name":"web01",`, "The VM web01 is not replicated any more.")
}

func TestEvents(t *testing.T) {
	a := newAgent(t, "primary")
	event := func(sequence uint64) *v1.Event {
		return &v1.Event{Id: 29242, Sequence: sequence, Time: timestamppb.New(now), Vm: "web01", Message: "started"}
	}
	answer(a, "Events", func(r *v1.ListEventsRequest) (*v1.ListEventsResponse, error) {
		if r.GetPageToken() == "" {
			return &v1.ListEventsResponse{Events: []*v1.Event{event(1), event(2)}, NextPageToken: "2"}, nil
		}
		return &v1.ListEventsResponse{Events: []*v1.Event{event(5)}}, nil
	})
	ctx, interrupt := context.WithCancel(t.Context())
	n := 0
	answer(a, "WatchEvents", func(r *v1.WatchEventsRequest) (func(grpc.ServerStreamingServer[v1.Event]) error, error) {
		n++
		return func(stream grpc.ServerStreamingServer[v1.Event]) error {
			if n == 3 {
				interrupt()
				<-stream.Context().Done()
				return stream.Context().Err()
			}
			// An event that was shown already comes again.
			return sendEvents(stream, event(r.GetAfterSequence()), event(r.GetAfterSequence()+3))
		}, nil
	})
	got := a.runContext(ctx, "events", "web01", "--follow", "-o", "json")
	got.expect(t, 130, "", "connection lost; no event is missed")
	var sequences []string
	for line := range strings.Lines(got.out) {
		_, rest, _ := strings.Cut(line, `"sequence":"`)
		sequence, _, _ := strings.Cut(rest, `"`)
		sequences = append(sequences, sequence)
	}
	if strings.Join(sequences, " ") != "1 2 5 8 11" {
		t.Errorf("showed %v", sequences)
	}
	a.run("events").expect(t, 0, "SEQUENCE  TIME ", "")
	fail[*v1.ListEventsRequest, *v1.ListEventsResponse](a, "Events", failure.New(failure.Internal, "X", "no"))
	if got := a.run("events"); got.out != "" || got.code != 1 {
		t.Errorf("a failure has an output: %+v", got)
	}
}

func sendEvents(stream grpc.ServerStreamingServer[v1.Event], events ...*v1.Event) error {
	for _, event := range events {
		if err := stream.Send(event); err != nil {
			return err
		}
	}
	return nil
}

func TestDescribe(t *testing.T) {
	a := newAgent(t, "replica")
	described := vm("web01", v1.ReplicationState_REPLICATION_STATE_REPLICATING, v1.Health_HEALTH_NORMAL)
	described.Status.Resync = id
	answer(a, "Get", func(*v1.GetReplicationRequest) (*v1.Replication, error) { return described, nil })
	answer(a, "GetResync", func(*v1.GetResyncRequest) (*v1.Resync, error) { return resync(v1.ResyncState_RESYNC_STATE_DONE), nil })
	a.run("describe", "web01").expect(t, 0, "Last resync\nResync 0123456789ab of the VM web01: Done", "")
	fail[*v1.GetResyncRequest, *v1.Resync](a, "GetResync", failure.New(failure.Precondition, failure.ReasonWrongRole, "a replica"))
	a.run("describe", "web01").expect(t, 0, "Replication of the VM web01\n", "")
	a.run("describe", "web01", "-o", "yaml").expect(t, 0, "name: web01\n", "")
}
