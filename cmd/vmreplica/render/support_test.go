package render_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"vmreplica/cmd/vmreplica/render"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the golden files anew")

// now is the clock of every test here: a fixed instant, an hour ahead of UTC.
var now = time.Date(2026, 11, 22, 22, 30, 0, 0, time.FixedZone("", 3600))

func ago(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-d)) }

// golden compares what print writes with testdata/name.
func golden(t *testing.T, name string, format render.Format, print func(render.Printer) error) {
	t.Helper()
	var got bytes.Buffer
	if err := print(render.Printer{Out: &got, Format: format, Now: func() time.Time { return now }}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got.Bytes(), want)
	}
}

const root = "4f1c0e8a5b7d93261f0a8c4e5d6b7f80912a3b4c5d6e7f8091a2b3c4d5e6f708"

// well is a VM that is as it should be.
func well() *vmreplicav1.Replication {
	return &vmreplicav1.Replication{
		Name: "web01", Uid: "0f1e2d3c4b5a69788796a5b4c3d2e1f0", Etag: "1", Labels: map[string]string{"site": "berlin", "env": "test"},
		Spec: &vmreplicav1.ReplicationSpec{
			ReplicaAddress: "replica.example:7443",
			Disks: []*vmreplicav1.DiskSpec{{
				Id: "root", Path: "/images/root.img", Format: vmreplicav1.DiskFormat_DISK_FORMAT_QCOW2,
				ReplicaFormat: vmreplicav1.DiskFormat_DISK_FORMAT_VHDX, DifferencingFormat: vmreplicav1.DiskFormat_DISK_FORMAT_QCOW2,
				Backing: []string{"/images/golden.raw"},
			}},
		},
		Status: &vmreplicav1.ReplicationStatus{
			Mode:   vmreplicav1.ReplicationMode_REPLICATION_MODE_PRIMARY,
			State:  vmreplicav1.ReplicationState_REPLICATION_STATE_REPLICATING,
			Health: vmreplicav1.Health_HEALTH_NORMAL, Activity: vmreplicav1.Activity_ACTIVITY_IDLE,
			HealthReasons: []*vmreplicav1.HealthReason{{
				Code: "VERIFIED_NOT_TRACKED", Health: vmreplicav1.Health_HEALTH_NORMAL, Since: ago(3 * time.Minute),
				Message: "Verified at T, not tracked.",
			}},
			Peer: "r1", Term: 1, Lineage: "aaaabbbbccccddddeeeeffff00001111", Cut: "bbbbccccddddeeeeffff000011112222",
			ProvenTime: ago(3 * time.Minute), ProvenRoot: root, LastSynchronizedTime: ago(3 * time.Minute),
			LastSynchronizedDuration: durationpb.New(12345 * time.Millisecond), CreateTime: ago(72 * time.Hour),
			Statistics: &vmreplicav1.ReplicationStatistics{StartTime: ago(72 * time.Hour), TransfersCompleted: 4, SentBytes: 5 << 30},
			Disks: []*vmreplicav1.DiskStatus{{
				Id: "root", Path: "/images/root.img", Format: vmreplicav1.DiskFormat_DISK_FORMAT_QCOW2, SizeBytes: 6 << 30,
				LogicalSectorBytes: 512, AllocatedBytes: 5 << 30, Root: root,
			}},
		},
	}
}

// ill is a VM that is being compared after a failure, with words that try to move the cursor.
func ill() *vmreplicav1.Replication {
	r := well()
	r.Name = "db01"
	s := r.Status
	s.State = vmreplicav1.ReplicationState_REPLICATION_STATE_RESYNCHRONIZING
	s.Activity = vmreplicav1.Activity_ACTIVITY_COMPARING
	s.Health = vmreplicav1.Health_HEALTH_CRITICAL
	s.ResyncCause, s.ResyncEvidence = vmreplicav1.ResyncCause_RESYNC_CAUSE_IMAGE_MODIFIED, "mtime differs"
	s.LastSynchronizedTime = ago(50 * time.Hour)
	s.HealthReasons = []*vmreplicav1.HealthReason{{
		Code: "RESYNC_REQUIRED", Health: vmreplicav1.Health_HEALTH_CRITICAL, Disk: "root", Since: ago(time.Hour),
		Message: "Resynchronization is required for the virtual machine \x1b[2Jdb01.", Remedy: "vmreplica resync db01",
	}}
	s.Disks[0].Progress = &vmreplicav1.TransferProgress{
		SizeBytes: 6 << 30, ComparedBytes: 3 << 30, DifferingBytes: 12 << 20, WireSentBytes: 4 << 20, CursorBytes: 2 << 30,
		RateBytesPerSecond: 800 << 20, Eta: durationpb.New(4 * time.Second),
	}
	s.Disks[0].Layers = []*vmreplicav1.Layer{
		{State: vmreplicav1.Layer_STATE_BASE, File: "p1/db01/root", Format: "raw", AllocatedBytes: 5 << 30},
		{State: vmreplicav1.Layer_STATE_RECEIVING, File: "p1/db01/root.1", Format: "qcow2", AllocatedBytes: -1},
	}
	return r
}

// running is a resync of two disks while it compares.
func running(done int64) *vmreplicav1.Resync {
	disk := func(id string, done int64) *vmreplicav1.ResyncDisk {
		return &vmreplicav1.ResyncDisk{
			Id: id, Path: "/images/" + id, SizeBytes: 1000 << 20,
			Progress: &vmreplicav1.TransferProgress{
				SizeBytes: 1000 << 20, ComparedBytes: done << 20, DifferingBytes: done << 10, WireSentBytes: done << 9,
				RateBytesPerSecond: 100 << 20, Eta: durationpb.New(7 * time.Second),
			},
		}
	}
	return &vmreplicav1.Resync{
		Id: "0123456789abcdef0123456789abcdef", Vm: "web01", Kind: vmreplicav1.ResyncKind_RESYNC_KIND_RESYNC,
		State: vmreplicav1.ResyncState_RESYNC_STATE_COMPARING, Disks: []*vmreplicav1.ResyncDisk{disk("root", done), disk("data", 0)},
		StartTime: ago(time.Minute),
	}
}

// done is a resync that has ended well.
func done() *vmreplicav1.Resync {
	r := running(0)
	r.State, r.Result, r.Cause = vmreplicav1.ResyncState_RESYNC_STATE_DONE, "proven equal; 16 blocks differed", "asked for by an operator"
	r.CommitTime, r.EndTime = ago(40*time.Second), ago(30*time.Second)
	r.Duration, r.Reconnects, r.Lineage = durationpb.New(20*time.Second), 2, "aaaabbbbccccddddeeeeffff00001111"
	for _, disk := range r.Disks {
		disk.Progress, disk.Root, disk.Duration = nil, root, durationpb.New(19500*time.Millisecond)
		disk.BlocksCompared, disk.BlocksDiffering, disk.BytesDiffering = 16000, 16, 64<<10
		disk.WireBytesSent, disk.WireBytesReceived = 80<<10, 130<<10
	}
	r.Disks[1].SegmentsResent = 1
	return r
}
