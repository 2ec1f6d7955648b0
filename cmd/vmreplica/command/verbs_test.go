package command_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"vmreplica/internal/failure"
	v1 "vmreplica/proto/vmreplica/v1"
)

func vm(name string, state v1.ReplicationState, health v1.Health) *v1.Replication {
	return &v1.Replication{
		Name: name, Uid: "u", Etag: "7", Labels: map[string]string{"a": "1", "b": "2"},
		Spec:   &v1.ReplicationSpec{ReplicaAddress: "r:7443"},
		Status: &v1.ReplicationStatus{State: state, Health: health, Activity: v1.Activity_ACTIVITY_IDLE},
	}
}

func ready() *v1.Replication {
	return vm("web01", v1.ReplicationState_REPLICATION_STATE_READY_FOR_INITIAL_REPLICATION, v1.Health_HEALTH_WARNING)
}

func TestEnable(t *testing.T) {
	a := newAgent(t, "primary")
	enable := []string{"enable", "web01", "--disk", "/i/root.img", "--disk", "/dev/vg/d,id=data", "--replica", "r:7443",
		"--use-existing", "--label", "site=berlin"}
	fail[*v1.GetReplicationRequest, *v1.Replication](a, "Get", failure.New(failure.NotFound, failure.ReasonNotFound, "no such VM"))
	answer(a, "Create", func(*v1.CreateReplicationRequest) (*v1.Replication, error) { return ready(), nil })
	a.run(enable...).expect(t, 0, "Replication of the VM web01 to r:7443 is enabled; nothing is copied yet.\nNext: vmreplica start-initial web01 --wait\n", "")
	raw := v1.DiskFormat_DISK_FORMAT_RAW
	want := &v1.Replication{Name: "web01", Labels: map[string]string{"site": "berlin"}, Spec: &v1.ReplicationSpec{
		Disks:          []*v1.DiskSpec{{Id: "root.img", Path: "/i/root.img", Format: raw}, {Id: "data", Path: "/dev/vg/d", Format: raw}},
		ReplicaAddress: "r:7443", UseExisting: true,
	}}
	if got := asked[*v1.CreateReplicationRequest](a)[0]; !proto.Equal(got.GetReplication(), want) || got.GetValidateOnly() || got.GetRequestId() == "" {
		t.Errorf("asked for %v", got)
	}

	a.run(append(enable, "--dry-run")...).expect(t, 0, "nothing was changed", "")
	if !asked[*v1.CreateReplicationRequest](a)[1].GetValidateOnly() {
		t.Error("a dry run was no dry run")
	}

	answer(a, "Get", func(*v1.GetReplicationRequest) (*v1.Replication, error) { return ready(), nil })
	a.run(append(enable, "--tls-dir", filepath.Join(a.pki, "alice"))...).
		expect(t, 0, "unchanged: the VM web01 is replicated to r:7443 already.\nNext: vmreplica --tls-dir "+filepath.Join(a.pki, "alice")+" start-initial", "")
	broken := ready()
	broken.Status.State = v1.ReplicationState_REPLICATION_STATE_ERROR
	answer(a, "Get", func(*v1.GetReplicationRequest) (*v1.Replication, error) { return broken, nil })
	a.run(enable...).expect(t, 0, "is enabled", "")
	a.run("enable", "web01", "--disk", "x.img", "--replica", "r:1").expect(t, 2, "", "is not absolute")
}

func TestRequestIDIsReusedByRetriesAndByNothingElse(t *testing.T) {
	a := newAgent(t, "primary")
	failures := 2
	answer(a, "Suspend", func(*v1.SuspendReplicationRequest) (*v1.Replication, error) {
		if failures--; failures >= 0 {
			return nil, status.Error(codes.Unavailable, "connection reset")
		}
		return vm("web01", v1.ReplicationState_REPLICATION_STATE_SUSPENDED, v1.Health_HEALTH_WARNING), nil
	})
	a.run("suspend", "web01", "--reason", "link").expect(t, 0, "is suspended (Suspended); the machine itself runs on.\nGo on with: vmreplica resume web01", "")
	a.run("suspend", "web01").expect(t, 0, "", "")
	ids := []string{}
	for _, request := range asked[*v1.SuspendReplicationRequest](a) {
		ids = append(ids, request.GetRequestId())
	}
	if len(ids) != 4 || len(ids[0]) != 32 || ids[0] != ids[1] || ids[1] != ids[2] || ids[2] == ids[3] {
		t.Errorf("asked with %q", ids)
	}
}

func TestWhatAnAgentAnsweredIsNotRepeated(t *testing.T) {
	a := newAgent(t, "primary")
	fail[*v1.StartResyncRequest, *v1.Resync](a, "Start",
		failure.New(failure.Unreachable, failure.ReasonReplicaUnreachable, "the replica does not answer").On("web01", "root").Try("Start it."))
	a.run("resync", "web01").expect(t, 5, "",
		"error: VM web01, disk root: the replica does not answer (REPLICA_UNREACHABLE)\n  Start it.\n  Asked: the primary agent a1 at "+a.address+"\n")
	if n := len(asked[*v1.StartResyncRequest](a)); n != 1 {
		t.Errorf("asked %d times", n)
	}
	fail[*v1.StartResyncRequest, *v1.Resync](a, "Start", status.Error(codes.Unavailable, "no answer"))
	a.run("resync", "web01").expect(t, 5, "", "It can be reached now: repeat the command.")
	if n := len(asked[*v1.StartResyncRequest](a)); n != 1+4 {
		t.Errorf("asked %d times", n)
	}
}

func TestExitCodesOfAnswers(t *testing.T) {
	a := newAgent(t, "replica")
	for class, code := range map[failure.Class]int{
		failure.Internal: 1, failure.Invalid: 2, failure.NotFound: 3, failure.Exists: 4, failure.Precondition: 4,
		failure.Unreachable: 5, failure.Denied: 6, failure.Exhausted: 1, failure.Conflict: 4, failure.Corrupt: 1,
	} {
		fail[*v1.GetReplicationRequest, *v1.Replication](a, "Get", failure.New(class, "SOME_REASON", "it is so\x1b[2J"))
		a.run("get", "web01").expect(t, code, "", "error: it is so [2J (SOME_REASON)\n  Asked: the replica agent a1 at "+a.address+"\n")
	}
}

func TestAgentsThatCannotBeAsked(t *testing.T) {
	a, other := newAgent(t, "primary"), newAgent(t, "primary")
	environment := map[string]string{"VMREPLICA_SERVER": a.address, "VMREPLICA_TLS_DIR": filepath.Join(other.pki, "alice")}
	run(t.Context(), environment, "get").expect(t, 6, "", "cannot be reached: tls: ")
	a.run("get", "--tls-dir", t.TempDir()).expect(t, 2, "", "vmreplica pki issue")
	a.run("get", "--tls-dir", filepath.Join(t.TempDir(), "nowhere")).expect(t, 2, "", "nowhere")
	a.run("get", "--server", "nowhere").expect(t, 2, "", "HOST:PORT")
	a.run("get", "--server", "does-not-exist.invalid:7442").expect(t, 5, "", "cannot be reached: dns: ")
	fail[*v1.ListReplicationsRequest, *v1.ListReplicationsResponse](a, "List", failure.New(failure.Internal, "X", "not reached"))
	viewer := a.issue("viewer", "bob")
	a.run("suspend", "web01", "--tls-dir", viewer).expect(t, 6, "", "role viewer may not call")
	a.server.Stop()
	a.run("get").expect(t, 5, "", "error: the agent at "+a.address+" cannot be reached: tcp: ")
	a.run("check").expect(t, 3, "VMREPLICA UNKNOWN - the agent at ", "")
}

func TestCheck(t *testing.T) {
	a := newAgent(t, "primary")
	for health, code := range map[v1.Health]int{v1.Health_HEALTH_NORMAL: 0, v1.Health_HEALTH_WARNING: 1, v1.Health_HEALTH_CRITICAL: 2, 0: 3} {
		answer(a, "Get", func(*v1.GetReplicationRequest) (*v1.Replication, error) {
			return vm("web01", v1.ReplicationState_REPLICATION_STATE_REPLICATING, health), nil
		})
		a.run("check", "web01").expect(t, code, "web01_failed=0c\n", "")
	}
	answer(a, "List", func(r *v1.ListReplicationsRequest) (*v1.ListReplicationsResponse, error) {
		if r.GetPageToken() == "" {
			return &v1.ListReplicationsResponse{NextPageToken: "web01", Replications: []*v1.Replication{vm("web01", 3, v1.Health_HEALTH_NORMAL)}}, nil
		}
		return &v1.ListReplicationsResponse{Replications: []*v1.Replication{vm("web02", 3, v1.Health_HEALTH_CRITICAL)}}, nil
	})
	a.run("check").expect(t, 2, "VMREPLICA CRITICAL - web02 is Replicating | web01_", "")
	a.run("get", "-o", "json").expect(t, 0, `"name": "web02"`, "")
	fail[*v1.GetReplicationRequest, *v1.Replication](a, "Get", failure.New(failure.NotFound, failure.ReasonNotFound, "no such VM"))
	a.run("check", "web01").expect(t, 3, "VMREPLICA UNKNOWN - no such VM\n", "")
}

func TestSet(t *testing.T) {
	a := newAgent(t, "primary")
	answer(a, "Get", func(*v1.GetReplicationRequest) (*v1.Replication, error) { return ready(), nil })
	answer(a, "Update", func(r *v1.UpdateReplicationRequest) (*v1.Replication, error) { return r.GetReplication(), nil })
	a.run("set", "web01", "--label", "b=3", "--label", "c=4", "--remove-label", "a", "--replica", "r2:1").
		expect(t, 0, "Changed for the VM web01: spec.replica_address, labels.", "")
	got := asked[*v1.UpdateReplicationRequest](a)[0]
	want := &v1.Replication{Name: "web01", Etag: "7", Labels: map[string]string{"b": "3", "c": "4"}, Spec: &v1.ReplicationSpec{ReplicaAddress: "r2:1"}}
	if !proto.Equal(got.GetReplication(), want) || got.GetRequestId() == "" {
		t.Errorf("asked for %v", got)
	}
	a.run("set", "web01", "--replica", "r3:1").expect(t, 0, "", "")
	if paths := asked[*v1.UpdateReplicationRequest](a)[1].GetUpdateMask().GetPaths(); !slices.Equal(paths, []string{"spec.replica_address"}) {
		t.Errorf("changed %v", paths)
	}
}

func TestResumeSaysThatNothingWasStarted(t *testing.T) {
	a := newAgent(t, "primary")
	state := v1.ReplicationState_REPLICATION_STATE_WAITING_FOR_START_RESYNCHRONIZE
	answer(a, "Resume", func(*v1.ResumeReplicationRequest) (*v1.Replication, error) {
		return &v1.Replication{Name: "web01", Status: &v1.ReplicationStatus{State: state}}, nil
	})
	a.run("resume", "web01").expect(t, 0, "Nothing was started by that. Start it with: vmreplica ", "")
	a.run("resume", "web01").expect(t, 0, " resync web01\n", "")
	a.run("resume", "web01", "--resynchronize").expect(t, 0, "Follow it with: ", "")
	state = v1.ReplicationState_REPLICATION_STATE_READY_FOR_INITIAL_REPLICATION
	a.run("resume", "web01").expect(t, 0, " start-initial web01\n", "")
	state = v1.ReplicationState_REPLICATION_STATE_REPLICATING
	a.run("resume", "web01").expect(t, 0, "Follow it with: ", "")
}

func TestResume(t *testing.T) {
	a := newAgent(t, "primary")
	answer(a, "Resume", func(*v1.ResumeReplicationRequest) (*v1.Replication, error) { return ready(), nil })
	a.run("resume", "web01", "--at", "22:30").expect(t, 2, "", "--resynchronize")
	a.run("resume", "web01", "--resynchronize", "--at", "+2h").expect(t, 0, "It resynchronizes at 2026-11-22 23:00:00 +01:00.", "")
	got := asked[*v1.ResumeReplicationRequest](a)
	if len(got) != 1 || !got[0].GetResynchronize() || !got[0].GetResyncStartTime().AsTime().Equal(now.Add(2*3600e9)) {
		t.Errorf("asked for %v", got)
	}
}

func TestRemoveAndCounters(t *testing.T) {
	a := newAgent(t, "primary")
	answer(a, "Delete", func(*v1.DeleteReplicationRequest) (*v1.DeleteReplicationResponse, error) {
		return &v1.DeleteReplicationResponse{Notes: []string{"The copy stays at p1/web01."}}, nil
	})
	a.run("remove", "web01", "--delete-replica-data", "--force").expect(t, 0, "not replicated any more.\n  The copy stays", "")
	if got := asked[*v1.DeleteReplicationRequest](a)[0]; !got.GetDeleteReplicaData() || !got.GetForce() || got.GetName() != "web01" || got.GetRequestId() == "" {
		t.Errorf("asked for %v", got)
	}
	answer(a, "Reset", func(*v1.ResetStatisticsRequest) (*v1.Replication, error) { return ready(), nil })
	a.run("reset-statistics", "web01").expect(t, 0, "are zero", "")
}

func TestAuthorizations(t *testing.T) {
	a := newAgent(t, "replica")
	answer(a, "Authorize", func(r *v1.CreateAuthorizationRequest) (*v1.Authorization, error) {
		entry := proto.CloneOf(r.GetAuthorization())
		entry.Pattern = "spiffe://vmreplica/vmreplica/primary/" + entry.GetPattern()
		return entry, nil
	})
	a.run("authorize", "berlin-*", "--storage", "b", "--quota", "2TiB", "--device", "db/d=/dev/x").
		expect(t, 0, "spiffe://vmreplica/vmreplica/primary/berlin-*  b        2.0 TiB", "")
	answer(a, "Reauthorize", func(r *v1.UpdateAuthorizationRequest) (*v1.Authorization, error) { return r.GetAuthorization(), nil })
	a.run("authorize", "berlin-*", "--update").expect(t, 2, "", "--update changes nothing")
	a.run("authorize", "berlin-*", "--update", "--quota", "none").expect(t, 0, "berlin-*", "")
	if paths := asked[*v1.UpdateAuthorizationRequest](a)[0].GetUpdateMask().GetPaths(); !slices.Equal(paths, []string{"quota_bytes"}) {
		t.Errorf("changed %v", paths)
	}
	answer(a, "Authorizations", func(*v1.ListAuthorizationsRequest) (*v1.ListAuthorizationsResponse, error) {
		return &v1.ListAuthorizationsResponse{}, nil
	})
	a.run("authorizations").expect(t, 0, "accepts no primary", "")
	answer(a, "Deauthorize", func(*v1.DeleteAuthorizationRequest) (*v1.DeleteAuthorizationResponse, error) {
		return &v1.DeleteAuthorizationResponse{}, nil
	})
	a.run("deauthorize", "host1").expect(t, 0, "host1 is not accepted any more", "")
}

func TestAgentSettings(t *testing.T) {
	a := newAgent(t, "primary")
	answer(a, "Agent", func(*v1.GetAgentRequest) (*v1.Agent, error) { return &v1.Agent{Role: v1.Role_ROLE_PRIMARY}, nil })
	a.run("agent", "get").expect(t, 0, "Bandwidth limit       none", "")
	answer(a, "UpdateAgent", func(r *v1.UpdateAgentRequest) (*v1.Agent, error) { return &v1.Agent{Settings: r.GetSettings()}, nil })
	a.run("agent", "set", "--bandwidth-limit", "50MiB/s", "--max-transfers", "3").expect(t, 0, "50.0 MiB/s", "")
	a.run("agent", "set", "--bandwidth-limit", "none").expect(t, 0, "", "")
	got := asked[*v1.UpdateAgentRequest](a)
	if len(got) != 2 || len(got[0].GetUpdateMask().GetPaths()) != 2 || got[0].GetSettings().GetMaxTransfers() != 3 ||
		!slices.Equal(got[1].GetUpdateMask().GetPaths(), []string{"bandwidth_limit_bytes_per_second"}) {
		t.Errorf("asked for %v", got)
	}
}

func TestConnectionChecks(t *testing.T) {
	a := newAgent(t, "primary")
	for failed, code := range map[string]int{"": 0, "dns": 5, "tcp": 5, "tls": 6, "role": 6, "entry": 6, "version": 4, "space": 4, "clock": 4} {
		answer(a, "Test", func(*v1.TestConnectionRequest) (*v1.TestConnectionResponse, error) {
			answer := &v1.TestConnectionResponse{Checks: []*v1.ConnectionCheck{{Name: "first", Passed: true}}}
			if failed != "" {
				answer.Checks = append(answer.Checks, &v1.ConnectionCheck{Name: failed, Message: "seen", Remedy: "Do this."})
			}
			return answer, nil
		})
		got := a.run("test-connection", "r:7443")
		got.expect(t, code, "From the primary agent a1 at "+a.address+" to the replica at r:7443\n", "")
		if failed != "" && !strings.Contains(got.err, "ends at "+failed+": seen (CHECK_"+strings.ToUpper(failed)+")\n  Do this.\n") {
			t.Errorf("%s: %s", failed, got.err)
		}
	}
}
