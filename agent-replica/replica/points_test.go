package replica

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/storage"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	"vmreplica/internal/state"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// The points of pointed: their cuts, and what changed at each.
const (
	firstPoint  = "aaaa0000"
	secondPoint = "aabb0000"
	newestCut   = "cccc0000"
	pointedSize = 4 << 20
)

func cut(beginning string) replication.ID {
	return replication.ID(beginning + strings.Repeat("0", 32-len(beginning)))
}

// pointed restarts the bed with a VM web01 that has two points, and answers the content of each, and the newest, by cut.
func pointed(t *testing.T, b *bed) map[replication.ID][]byte {
	t.Helper()
	b.ready()
	b.stop()
	base := filepath.Join(b.storage, "pve1", "web01", "root")
	check(t, os.MkdirAll(filepath.Dir(base), 0o700))
	content := append(bytes.Repeat([]byte{0x11}, pointedSize/2), make([]byte, pointedSize/2)...)
	check(t, os.WriteFile(base, content[:pointedSize/2], 0o600))
	check(t, os.Truncate(base, pointedSize))
	store, err := state.Open(filepath.Join(b.state, "replica.db"))
	check(t, err)
	files, err := storage.Open(b.storage, nil)
	check(t, err)
	registry := chain.NewRegistry(chain.NewTable(store, nil), files)
	_, err = registry.Prepare(chain.Prepare{
		VM: "web01", UID: cut("aaaa"), Primary: "spiffe://example.org/vmreplica/primary/pve1",
		Authorization: "spiffe://example.org/vmreplica/primary/pve1", Directory: "pve1/web01", Term: 2, UseExisting: true,
		Disks: []chain.PrepareDisk{{Geometry: chain.Geometry{ID: "root", SizeBytes: pointedSize, LogicalSectorSize: 512}}},
	})
	check(t, err)
	vm := registry.VM("web01")
	check(t, vm.Acquire())
	contents := map[replication.ID][]byte{}
	for i, name := range []string{firstPoint, secondPoint, newestCut} {
		opened, err := vm.Disk("root")
		check(t, err)
		if i > 0 { // what a cycle merged into the layer that stands on the point
			at := int64(i) << 20
			_, err := opened.Top().WriteAt(bytes.Repeat([]byte{byte(i)}, 64<<10), at)
			check(t, errors.Join(err, opened.Top().Zero(0, 4096*int64(i)), opened.Top().Flush()))
			_, err = vm.Update(func(r *chain.Record) (err error) {
				layer := &r.Disks[0].Layers[i-1]
				layer.Stamp, err = files.Settle(chain.Base{File: layer.File})
				return err
			})
			check(t, err)
			copy(content[at:], bytes.Repeat([]byte{byte(i)}, 64<<10))
			clear(content[:4096*i])
		}
		contents[cut(name)] = bytes.Clone(content)
		_, err = vm.Update(func(r *chain.Record) error {
			r.Lineage, r.Cut, r.RecoveryPoints = cut("1"), cut(name), 2
			r.CutTime = time.Date(2026, 11, 22, 10+i, 0, 0, 0, time.UTC)
			return nil
		})
		check(t, err)
		if i < 2 {
			_, err := vm.SealPoint(time.Now())
			check(t, err)
		}
	}
	check(t, errors.Join(vm.Release(), files.Close(), store.Close()))
	b.start()
	b.ready()
	return contents
}

// ready waits until the agent serves.
func (b *bed) ready() {
	b.t.Helper()
	_, err := vmreplicav1.NewAgentServiceClient(b.dial("bob")).GetAgent(b.t.Context(), &vmreplicav1.GetAgentRequest{})
	check(b.t, err)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestPointsAreShown(t *testing.T) {
	b := newBed(t)
	pointed(t, b)
	viewer := vmreplicav1.NewRecoveryPointServiceClient(b.dial("bob"))
	list, err := viewer.ListRecoveryPoints(t.Context(), &vmreplicav1.ListRecoveryPointsRequest{Vm: "web01"})
	check(t, err)
	if points := list.RecoveryPoints; len(points) != 3 || points[0].Id != string(cut(firstPoint)) || points[0].Latest ||
		points[1].AllocatedBytes <= 0 || points[1].Time.AsTime().Hour() != 11 || !points[2].Latest || points[2].Id != string(cut(newestCut)) {
		t.Errorf("points %v", list)
	}
	shown, err := vmreplicav1.NewReplicationServiceClient(b.dial("bob")).GetReplication(t.Context(),
		&vmreplicav1.GetReplicationRequest{Name: "web01"})
	if err != nil || len(shown.Status.RecoveryPoints) != 3 {
		t.Errorf("the status shows %v, %v", shown.GetStatus().GetRecoveryPoints(), err)
	}
	if families, err := testutil.GatherAndCount(b.registry, "vmreplica_replica_recovery_points", "vmreplica_replica_readers"); err != nil || families != 2 {
		t.Errorf("%d metrics, %v", families, err)
	}
	for id, want := range map[string]string{
		"": newestCut, "aab": secondPoint, string(cut(firstPoint)): firstPoint, "aa": failure.ReasonInvalidArgument,
		"d": failure.ReasonNotFound,
	} {
		point, err := viewer.GetRecoveryPoint(t.Context(), &vmreplicav1.GetRecoveryPointRequest{Vm: "web01", Id: id})
		if err != nil {
			wantReason(t, id, err, want)
		} else if !strings.HasPrefix(point.Id, want) || point.Latest != (want == newestCut) {
			t.Errorf("%q is %v", id, point)
		}
	}
	_, err = viewer.ListRecoveryPoints(t.Context(), &vmreplicav1.ListRecoveryPointsRequest{Vm: "nobody"})
	wantReason(t, "an unknown VM", err, failure.ReasonNotFound)
}

func TestAPointIsDeletedOnceForOneRequest(t *testing.T) {
	b := newBed(t)
	pointed(t, b)
	operator := vmreplicav1.NewRecoveryPointServiceClient(b.dial("alice"))
	request := &vmreplicav1.DeleteRecoveryPointRequest{Vm: "web01", Id: "aaaa", RequestId: "r1"}
	for range 2 {
		_, err := operator.DeleteRecoveryPoint(t.Context(), request)
		check(t, err)
	}
	list, err := operator.ListRecoveryPoints(t.Context(), &vmreplicav1.ListRecoveryPointsRequest{Vm: "web01"})
	if err != nil || len(list.RecoveryPoints) != 2 {
		t.Errorf("left %v, %v", list, err)
	}
	for _, id := range []string{"", "cccc"} {
		_, err = operator.DeleteRecoveryPoint(t.Context(), &vmreplicav1.DeleteRecoveryPointRequest{Vm: "web01", Id: id})
		wantReason(t, "the newest", err, failure.ReasonWrongState)
	}
	_, err = vmreplicav1.NewRecoveryPointServiceClient(b.dial("bob")).DeleteRecoveryPoint(t.Context(), request)
	wantReason(t, "a viewer", err, failure.ReasonNotAuthorized)
}

// readPoint is what a point's stream holds, and how many bytes of it were sent.
func readPoint(t *testing.T, client vmreplicav1.RecoveryPointServiceClient, id, diskID string) (content []byte, sent int, err error) {
	t.Helper()
	stream, err := client.ReadRecoveryPoint(t.Context(), &vmreplicav1.ReadRecoveryPointRequest{Vm: "web01", Id: id, Disk: diskID})
	check(t, err)
	next := int64(0)
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if next != int64(len(content)) {
				t.Errorf("the stream ended at %d of %d bytes", next, len(content))
			}
			return content, sent, nil
		}
		if err != nil {
			return nil, 0, err
		}
		switch {
		case message.GetHeader() != nil:
			content = bytes.Repeat([]byte{0xee}, int(message.GetHeader().SizeBytes))
		case message.GetData() != nil:
			data := message.GetData()
			if data.Offset != next || len(data.Content) == 0 || len(data.Content) > 1<<20 {
				t.Fatalf("%d bytes at %d, after %d", len(data.Content), data.Offset, next)
			}
			next, sent = next+int64(copy(content[next:], data.Content)), sent+len(data.Content)
		default:
			zeros := message.GetZeros()
			if zeros.GetOffset() != next || zeros.GetLength() <= 0 {
				t.Fatalf("zeros %v after %d", zeros, next)
			}
			clear(content[next : next+zeros.Length])
			next += zeros.Length
		}
	}
}

func TestAPointIsRead(t *testing.T) {
	b := newBed(t)
	contents := pointed(t, b)
	operator := vmreplicav1.NewRecoveryPointServiceClient(b.dial("alice"))
	for id, want := range map[string]replication.ID{"": cut(newestCut), firstPoint: cut(firstPoint), "aabb": cut(secondPoint)} {
		content, sent, err := readPoint(t, operator, id, "")
		if err != nil || !bytes.Equal(content, contents[want]) {
			t.Errorf("point %q is read wrong: %v", id, err)
		}
		if sent > pointedSize/2+128<<10 {
			t.Errorf("%d bytes were sent, zeros too", sent)
		}
	}
	_, _, err := readPoint(t, operator, firstPoint, "other")
	wantReason(t, "another disk", err, failure.ReasonNotFound)
	_, _, err = readPoint(t, operator, "dddd", "")
	wantReason(t, "another point", err, failure.ReasonNotFound)
}
