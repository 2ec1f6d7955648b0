package replica

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"vmreplica/agent-replica/chain"
	"vmreplica/blockdiff"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// pointedRelationship is that of the VM of pointed, as its primary knows it.
func pointedRelationship() *vmreplicav1.Relationship {
	return &vmreplicav1.Relationship{Vm: "web01", Uid: string(cut("aaaa")), Term: 2}
}

func pointedBegin() *vmreplicav1.BeginTransferRequest {
	return &vmreplicav1.BeginTransferRequest{
		Relationship: pointedRelationship(), Transfer: strings.Repeat("d", 32), Kind: vmreplicav1.TransferKind_TRANSFER_KIND_DELTA,
		Proof:   vmreplicav1.ProofAlgorithm_PROOF_ALGORITHM_BLAKE3,
		Disks:   []*vmreplicav1.TransferDisk{{Id: "root", SizeBytes: pointedSize, LogicalSectorBytes: 512}},
		Lineage: string(cut("1")), Cut: string(cut(newestCut)), RecoveryPoints: 2,
	}
}

func shipOpen(session uint64) *vmreplicav1.ShipRequest {
	return &vmreplicav1.ShipRequest{Message: &vmreplicav1.ShipRequest_Open{Open: &vmreplicav1.ShipOpen{
		Relationship: pointedRelationship(), Transfer: strings.Repeat("d", 32), Disk: "root", Session: session,
		Shipment: strings.Repeat("e", 32),
	}}}
}

// shipping is a primary in the middle of a delta, whose first frame was written.
func shipping(t *testing.T, client vmreplicav1.TransferServiceClient) vmreplicav1.TransferService_ShipClient {
	t.Helper()
	_, err := client.BeginTransfer(t.Context(), pointedBegin())
	check(t, err)
	stream, err := client.Ship(t.Context())
	check(t, err)
	check(t, stream.Send(shipOpen(1)))
	_, err = stream.Recv()
	check(t, err)
	check(t, stream.Send(&vmreplicav1.ShipRequest{Message: &vmreplicav1.ShipRequest_Frame{Frame: shipFrame(t)}}))
	answer, err := stream.Recv()
	check(t, err)
	if answer.GetAcknowledgement().GetFrameSequence() != 1 {
		t.Fatalf("answered %v", answer)
	}
	return stream
}

func shipFrame(t *testing.T) *vmreplicav1.Frame {
	t.Helper()
	geometry, err := blockdiff.NewGeometry(pointedSize)
	check(t, err)
	builder := blockdiff.NewBuilder(geometry, 1<<20)
	check(t, builder.AddData(0, bytes.Repeat([]byte{9}, 64<<10)))
	f, err := blockdiff.NewEncoder().Encode(geometry, builder.Take())
	check(t, err)
	return &vmreplicav1.Frame{Sequence: 1, Extents: f.Extents, Codec: vmreplicav1.Codec(f.Codec), PlaintextBytes: f.PlaintextBytes,
		PlaintextDigest: f.PlaintextDigest, Payload: f.Payload}
}

// ended waits for the failover's end.
func ended(t *testing.T, client vmreplicav1.FailoverServiceClient) *vmreplicav1.Failover {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		shown, err := client.GetFailover(t.Context(), &vmreplicav1.GetFailoverRequest{Vm: "web01"})
		check(t, err)
		if shown.EndTime != nil {
			return shown
		}
	}
	t.Fatal("the failover does not end")
	return nil
}

func TestAFailoverInAllItsSteps(t *testing.T) {
	b := newBed(t)
	contents := pointed(t, b)
	b.authorize("pve1")
	base := filepath.Join(b.storage, "pve1", "web01", "root")
	primary := vmreplicav1.NewTransferServiceClient(b.dial("pve1"))
	operator := vmreplicav1.NewFailoverServiceClient(b.dial("alice"))
	stream := shipping(t, primary)
	_, err := operator.GetFailover(t.Context(), &vmreplicav1.GetFailoverRequest{Vm: "web01"})
	wantReason(t, "before it", err, failure.ReasonNotFound)

	planned, err := operator.StartFailover(t.Context(), &vmreplicav1.StartFailoverRequest{Vm: "web01", RecoveryPoint: "aabb", ValidateOnly: true})
	check(t, err)
	if planned.RecoveryPoint != string(cut(secondPoint)) || planned.Term != 3 || planned.StartTime != nil || planned.EndTime != nil ||
		!strings.Contains(strings.Join(planned.Notes, " "), "dddddddd") || planned.Disks[0].Path != base {
		t.Errorf("planned %v", planned)
	}
	_, err = operator.GetFailover(t.Context(), &vmreplicav1.GetFailoverRequest{Vm: "web01"})
	wantReason(t, "after the plan", err, failure.ReasonNotFound)

	request := &vmreplicav1.StartFailoverRequest{Vm: "web01", RecoveryPoint: "aabb", RequestId: "r1"}
	begun, err := operator.StartFailover(t.Context(), request)
	check(t, err)
	again, err := operator.StartFailover(t.Context(), request)
	if err != nil || !proto.Equal(begun, again) {
		t.Errorf("repeated: %v, %v", again, err)
	}
	for {
		if _, err = stream.Recv(); err != nil {
			break
		}
	}
	wantReason(t, "the frame under way", err, failure.ReasonFailedOver)
	refused(t, primary)
	shown := ended(t, operator)
	if shown.RecoveryPoint != string(cut(secondPoint)) || shown.Term != 3 || shown.MergedBytes != shown.MergeTotalBytes ||
		shown.MergedBytes == 0 || !strings.Contains(shown.QemuArguments[0], `"driver":"raw"`) || !strings.Contains(shown.QemuArguments[0], base) {
		t.Errorf("ended as %v", shown)
	}
	if held, err := os.ReadFile(base); err != nil || !bytes.Equal(held, contents[cut(secondPoint)]) {
		t.Errorf("the disk does not hold the point: %v", err)
	}
	refused(t, primary)
	_, err = operator.StartFailover(t.Context(), &vmreplicav1.StartFailoverRequest{Vm: "web01"})
	wantReason(t, "to another point", err, failure.ReasonWrongState)
	_, err = operator.StartFailover(t.Context(), &vmreplicav1.StartFailoverRequest{Vm: "web01", RecoveryPoint: string(cut(secondPoint))})
	wantReason(t, "to the same point", err, "")
	_, err = vmreplicav1.NewFailoverServiceClient(b.dial("pve1")).StartFailover(t.Context(), request)
	wantReason(t, "by the primary", err, failure.ReasonNotAuthorized)
	afterwards(t, b, base)
}

// refused says that nothing of the primary is admitted, whatever its term.
func refused(t *testing.T, primary vmreplicav1.TransferServiceClient) {
	t.Helper()
	for _, term := range []uint64{1, 2, 3, 9} {
		named := pointedRelationship()
		named.Term = term
		begin := pointedBegin()
		begin.Relationship = named
		_, err := primary.BeginTransfer(t.Context(), begin)
		wantReason(t, "at begin", err, failure.ReasonFailedOver)
		_, err = primary.CommitTransfer(t.Context(), &vmreplicav1.CommitTransferRequest{Relationship: named, Transfer: begin.Transfer,
			Lineage: begin.Lineage, Cut: strings.Repeat("e", 32)})
		wantReason(t, "at commit", err, failure.ReasonFailedOver)
		_, err = primary.Reconcile(t.Context(), &vmreplicav1.ReconcileRequest{Relationship: named})
		wantReason(t, "at reconciling", err, failure.ReasonFailedOver)
		_, err = primary.AbortTransfer(t.Context(), &vmreplicav1.AbortTransferRequest{Relationship: named, Transfer: begin.Transfer})
		wantReason(t, "at abort", err, failure.ReasonFailedOver)
		_, err = primary.ReleaseReplica(t.Context(), &vmreplicav1.ReleaseReplicaRequest{Relationship: named, DeleteData: true})
		wantReason(t, "at removal", err, failure.ReasonFailedOver)
		_, err = primary.PrepareReplica(t.Context(), &vmreplicav1.PrepareReplicaRequest{Relationship: named, Disks: begin.Disks})
		wantReason(t, "at preparing", err, failure.ReasonFailedOver)
		stream, err := primary.Ship(t.Context())
		check(t, err)
		open := shipOpen(term + 10)
		open.GetOpen().Relationship = named
		check(t, stream.Send(open))
		_, err = stream.Recv()
		wantReason(t, "at open", err, failure.ReasonFailedOver)
	}
}

// afterwards the disks are the machine's: what it writes is no doubt, and nothing but the record goes with a removal.
func afterwards(t *testing.T, b *bed, base string) {
	t.Helper()
	check(t, os.WriteFile(base, bytes.Repeat([]byte{7}, pointedSize), 0o600))
	b.stop()
	b.start()
	replications := vmreplicav1.NewReplicationServiceClient(b.dial("alice"))
	shown, err := replications.GetReplication(t.Context(), &vmreplicav1.GetReplicationRequest{Name: "web01"})
	check(t, err)
	status := shown.Status
	if status.State != vmreplicav1.ReplicationState_REPLICATION_STATE_FAILED_OVER || status.FailoverTime == nil ||
		status.FailoverPoint != string(cut(secondPoint)) || len(status.RecoveryPoints) != 0 || len(status.HealthReasons) != 1 ||
		status.HealthReasons[0].Code != failure.ReasonFailedOver {
		t.Errorf("shown %v", status)
	}
	told, err := vmreplicav1.NewEventServiceClient(b.dial("bob")).ListEvents(t.Context(), &vmreplicav1.ListEventsRequest{Vm: "web01"})
	check(t, err)
	for _, typ := range []string{event.TypeFailoverStarted, event.TypeFailoverFinished} {
		if !slices.ContainsFunc(told.Events, func(e *vmreplicav1.Event) bool { return e.Type == typ }) {
			t.Errorf("%s was not told", typ)
		}
	}
	request := &vmreplicav1.DeleteReplicationRequest{Name: "web01", Force: true, DeleteReplicaData: true}
	_, err = replications.DeleteReplication(t.Context(), request)
	wantReason(t, "deleting the machine's disks", err, failure.ReasonFailedOver)
	request.DeleteReplicaData = false
	_, err = replications.DeleteReplication(t.Context(), request)
	check(t, err)
	if held, err := os.ReadFile(base); err != nil || !bytes.Equal(held, bytes.Repeat([]byte{7}, pointedSize)) {
		t.Errorf("the machine's disk after the removal: %v", err)
	}
}

// A failover outlives its agent, and a reader is told of and waited for.
func TestAFailoverThatIsInterrupted(t *testing.T) {
	b := newBed(t)
	contents := pointed(t, b)
	operator := vmreplicav1.NewFailoverServiceClient(b.dial("alice"))
	reading, err := vmreplicav1.NewRecoveryPointServiceClient(b.dial("alice")).ReadRecoveryPoint(t.Context(),
		&vmreplicav1.ReadRecoveryPointRequest{Vm: "web01", Id: firstPoint})
	check(t, err)
	_, err = reading.Recv()
	check(t, err)
	begun, err := operator.StartFailover(t.Context(), &vmreplicav1.StartFailoverRequest{Vm: "web01"})
	check(t, err)
	if begun.EndTime != nil || begun.MergeTotalBytes == 0 {
		t.Errorf("begun as %v", begun)
	}
	b.stop()
	b.start()
	ended(t, vmreplicav1.NewFailoverServiceClient(b.dial("alice")))
	base := filepath.Join(b.storage, "pve1", "web01", "root")
	if held, err := os.ReadFile(base); err != nil || !bytes.Equal(held, contents[cut(newestCut)]) {
		t.Errorf("the disk does not hold the newest content: %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(base)); err != nil || len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestQEMUArguments(t *testing.T) {
	for _, c := range []struct {
		d    chain.Disk
		path string
		want []string
	}{
		{chain.Disk{LogicalSectorSize: 512, Base: chain.Base{File: "x", Format: replication.FormatVHD}}, "/srv/it's, a",
			[]string{`"driver":"vpc"`, `"driver":"file"`, `it'\''s, a`, "virtio-blk-pci,drive=disk3"}},
		{chain.Disk{LogicalSectorSize: 4096, Base: chain.Base{Device: "/dev/vg/web01"}}, "/dev/vg/web01",
			[]string{`"driver":"raw"`, `"driver":"host_device"`, "logical_block_size=4096,physical_block_size=4096"}},
	} {
		got := strings.Join(qemuArguments(3, c.d, c.path), "\n")
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s does not have %s", got, want)
			}
		}
	}
}
