package command_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmreplica/internal/failure"
	v1 "vmreplica/proto/vmreplica/v1"
)

func TestAttachInfo(t *testing.T) {
	a := newAgent(t, "primary")
	found := &v1.Attachment{
		Socket: "/run/vmreplica/nbd.sock", Disks: []*v1.AttachmentDisk{{Id: "root", ExportName: "web01/root"}},
		QemuArguments: []string{"-blockdev 'driver=nbd,x'", "-device virtio-blk-pci,drive=root"},
		LibvirtXml:    "<disk>\n\t<source/>\x1b[2J\n</disk>\n",
		Notes:         []string{"Start the machine with werror=stop--always."},
	}
	answer(a, "Attachment", func(*v1.GetAttachmentRequest) (*v1.Attachment, error) { return found, nil })
	got := a.run("attach-info", "web01")
	got.expect(t, 0, "", "# Start the machine with werror=stop--always.\n")
	if got.out != "-blockdev 'driver=nbd,x' \\\n-device virtio-blk-pci,drive=root\n" {
		t.Errorf("got %q", got.out)
	}
	got = a.run("attach-info", "web01", "--form", "libvirt")
	got.expect(t, 0, "", "<!-- Start the machine with werror=stop- -always. -->\n")
	if got.out != "<disk>\n <source/>[2J\n</disk>\n" {
		t.Errorf("got %q", got.out)
	}
	got = a.run("attach-info", "web01", "-o", "json")
	got.expect(t, 0, `"exportName": "web01/root"`, "")
	if got.err != "" {
		t.Errorf("got %q", got.err)
	}
	// Words of an option may come one by one.
	found.QemuArguments = []string{"-blockdev", "{}", "-device", "x"}
	a.run("attach-info", "web01").expect(t, 0, "-blockdev {} \\\n-device x\n", "")
	found.Disks[0].Obstacle = "its format is qcow2"
	a.run("attach-info", "web01").expect(t, 4, "-blockdev", "VM web01: it cannot be attached whole: disk root: its format is qcow2")
	fail[*v1.GetAttachmentRequest, *v1.Attachment](a, "Attachment", failure.New(failure.NotFound, failure.ReasonNotFound, "no such VM"))
	a.run("attach-info", "web01").expect(t, 3, "", "no such VM")
}

func TestHRLInfoOfWhatIsNone(t *testing.T) {
	directory := t.TempDir()
	run(t.Context(), nil, "hrl", "info", filepath.Join(directory, "none.hrl")).expect(t, 3, "", "STATE_DIR/hrl/VM-UID/DISK.hrl")
	run(t.Context(), nil, "hrl", "info", directory).expect(t, 4, "", "is no file")
	junk := filepath.Join(directory, "junk.hrl")
	if err := os.WriteFile(junk, []byte(strings.Repeat("junk", 4096)), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t.Context(), nil, "hrl", "info", junk).expect(t, 1, "", "is no whole log")
}

func TestMeasure(t *testing.T) {
	a := newAgent(t, "primary")
	measured := vm("web01", v1.ReplicationState_REPLICATION_STATE_REPLICATING, v1.Health_HEALTH_NORMAL)
	measured.Status.Statistics = &v1.ReplicationStatistics{CyclesCompleted: 2, ReplicatedBytes: 4096, CyclesMissed: 7}
	answer(a, "Get", func(*v1.GetReplicationRequest) (*v1.Replication, error) { return measured, nil })
	answer(a, "List", func(*v1.ListReplicationsRequest) (*v1.ListReplicationsResponse, error) {
		return &v1.ListReplicationsResponse{Replications: []*v1.Replication{measured}}, nil
	})
	a.run("measure", "web01").expect(t, 0, "Size of a cycle       2.0 KiB on the average", "")
	a.run("measure").expect(t, 0, "web01  Normal  -      2       7       0       2.0 KiB", "")
	a.run("measure", "web01", "-o", "json").expect(t, 0, `"cyclesMissed": "7"`, "")
	fail[*v1.ListReplicationsRequest, *v1.ListReplicationsResponse](a, "List", failure.New(failure.Denied, failure.ReasonNotAuthorized, "no"))
	a.run("measure").expect(t, 6, "", "no")
}
