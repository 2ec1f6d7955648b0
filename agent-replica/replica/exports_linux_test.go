package replica

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vmreplica/internal/failure"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// exporting is a bed that exports the points of pointed, and the content of each.
func exporting(t *testing.T) (b *bed, contents map[string][]byte) {
	t.Helper()
	b = newBed(t)
	b.nbdSocket = filepath.Join(t.TempDir(), "nbd.sock")
	contents = map[string][]byte{}
	for id, content := range pointed(t, b) {
		contents[string(id)] = content
	}
	return b, contents
}

func (b *bed) uri(name string) string { return "nbd+unix:///" + name + "?socket=" + b.nbdSocket }

// tool runs a program and answers what it says.
func tool(name string, arguments ...string) (string, error) {
	output, err := exec.Command(name, arguments...).CombinedOutput()
	return string(output), err
}

// TestOthersReadThePoints copies every export with libnbd's and QEMU's programs.
func TestOthersReadThePoints(t *testing.T) {
	b, contents := exporting(t)
	for name, want := range map[string]string{
		"web01/root": newestCut, "web01/root@aaaa": firstPoint, "web01/root@" + string(cut(secondPoint)): secondPoint,
	} {
		out := filepath.Join(t.TempDir(), "out.raw")
		for _, copying := range [][]string{
			{"nbdcopy", b.uri(name), out},
			{"qemu-img", "convert", "-f", "raw", "-O", "raw", b.uri(name), out},
		} {
			said, err := tool(copying[0], copying[1:]...)
			got, readErr := os.ReadFile(out)
			if err != nil || readErr != nil || !bytes.Equal(got, contents[string(cut(want))]) {
				t.Errorf("%s of %s: %v %v %s", copying[0], name, err, readErr, said)
			}
			check(t, os.Remove(out))
		}
		said, err := tool("nbdinfo", b.uri(name))
		if err != nil || !strings.Contains(said, "is_read_only: true") || !strings.Contains(said, string(cut(want))) {
			t.Errorf("nbdinfo %s: %v %s", name, err, said)
		}
	}
	said, err := tool("nbdinfo", "--map", "--totals", b.uri("web01/root"))
	if err != nil || !strings.Contains(said, "hole,zero") && !strings.Contains(said, "zero") {
		t.Errorf("the map shows no zeros: %v %s", err, said)
	}
	said, err = tool("nbdinfo", "--list", b.uri(""))
	if err != nil || strings.Count(said, "export=\"web01/root") != 3 {
		t.Errorf("listed: %v %s", err, said)
	}
	if said, err := tool("qemu-io", "-f", "raw", "-c", "write 0 4k", b.uri("web01/root")); err == nil && !strings.Contains(said, "read-only") {
		t.Errorf("a write was not refused: %s", said)
	}
}

func TestNamesThatAreNoExport(t *testing.T) {
	b, _ := exporting(t)
	if said, err := tool("nbdinfo", "--size", b.uri("web01/root%40aaaa")); err != nil || strings.TrimSpace(said) != "4194304" {
		t.Errorf("a good name: %v %s", err, said)
	}
	for _, name := range []string{
		"", "web01", "web01/", "/root", "web02/root", "web01/other", "web01/root@", "web01/root@zz", "web01/root@aa",
		"web01/root@dddd", "web01/root@aaaa@aaaa", "web01/../root", "../web01/root", "web01/root@" + strings.Repeat("a", 33),
	} {
		if said, err := tool("nbdinfo", "--size", b.uri(strings.ReplaceAll(name, "@", "%40"))); err == nil {
			t.Errorf("%q was found: %s", name, said)
		}
	}
	list, err := vmreplicav1.NewRecoveryPointServiceClient(b.dial("alice")).ListRecoveryPoints(t.Context(),
		&vmreplicav1.ListRecoveryPointsRequest{Vm: "web01"})
	check(t, err)
	for _, point := range list.RecoveryPoints {
		if point.Readers != 0 {
			t.Errorf("a refused name left a reader: %v", point)
		}
	}
}

// TestAConnectedClientKeepsItsPoint until it leaves, and two clients of one name read the same.
func TestAConnectedClientKeepsItsPoint(t *testing.T) {
	b, _ := exporting(t)
	operator := vmreplicav1.NewRecoveryPointServiceClient(b.dial("alice"))
	readers := func() int32 {
		t.Helper()
		point, err := operator.GetRecoveryPoint(t.Context(), &vmreplicav1.GetRecoveryPointRequest{Vm: "web01", Id: firstPoint})
		check(t, err)
		return point.Readers
	}
	leave := connect(t, b, "web01/root@"+firstPoint)
	leaveToo := connect(t, b, "web01/root@"+firstPoint)
	if n := readers(); n != 1 {
		t.Errorf("%d readers", n)
	}
	leaveToo()
	request := &vmreplicav1.DeleteRecoveryPointRequest{Vm: "web01", Id: firstPoint}
	_, err := operator.DeleteRecoveryPoint(t.Context(), request)
	wantReason(t, "delete what is read", err, failure.ReasonWrongState)
	if err == nil || !strings.Contains(err.Error(), "web01/root@"+firstPoint) {
		t.Errorf("%v does not say who reads", err)
	}
	_, err = vmreplicav1.NewReplicationServiceClient(b.dial("alice")).DeleteReplication(t.Context(),
		&vmreplicav1.DeleteReplicationRequest{Name: "web01", Force: true, DeleteReplicaData: true})
	if err == nil || !strings.Contains(err.Error(), "web01/root@"+firstPoint) {
		t.Errorf("the removal of what is read answered %v", err)
	}
	leave()
	for deadline := time.Now().Add(10 * time.Second); readers() > 0; {
		if time.Now().After(deadline) {
			t.Fatal("the reader is still there")
		}
		time.Sleep(10 * time.Millisecond)
	}
	_, err = operator.DeleteRecoveryPoint(t.Context(), request)
	check(t, err)
}

// connect leads a client to the transmission of an export, by EXPORT_NAME, and answers how it leaves.
func connect(t *testing.T, b *bed, name string) (leave func()) {
	t.Helper()
	conn, err := net.Dial("unix", b.nbdSocket)
	check(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	hello := make([]byte, 18)
	_, err = conn.Read(hello)
	check(t, err)
	request := append([]byte{0, 0, 0, 3}, "IHAVEOPT\x00\x00\x00\x01\x00\x00\x00"...)
	_, err = conn.Write(append(append(request, byte(len(name))), name...))
	check(t, err)
	answer := make([]byte, 10)
	_, err = conn.Read(answer)
	check(t, err)
	return func() { check(t, conn.Close()) }
}
