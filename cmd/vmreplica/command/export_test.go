package command_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"vmreplica/internal/failure"
	v1 "vmreplica/proto/vmreplica/v1"
)

// contextOf is a context that the test ends.
func contextOf(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithCancel(t.Context())
}

type reading = func(grpc.ServerStreamingServer[v1.ReadRecoveryPointResponse]) error

func header(disk, point string, size int64) *v1.ReadRecoveryPointResponse {
	return &v1.ReadRecoveryPointResponse{Message: &v1.ReadRecoveryPointResponse_Header{Header: &v1.RecoveryPointHeader{
		RecoveryPoint: &v1.RecoveryPoint{Id: point, Time: timestamppb.New(now)}, Disk: disk, SizeBytes: size, LogicalSectorBytes: 512,
	}}}
}

func data(offset int64, content []byte) *v1.ReadRecoveryPointResponse {
	return &v1.ReadRecoveryPointResponse{Message: &v1.ReadRecoveryPointResponse_Data{Data: &v1.RecoveryPointData{Offset: offset, Content: content}}}
}

func zeros(offset, length int64) *v1.ReadRecoveryPointResponse {
	return &v1.ReadRecoveryPointResponse{Message: &v1.ReadRecoveryPointResponse_Zeros{Zeros: &v1.RecoveryPointZeros{Offset: offset, Length: length}}}
}

func speaks(err error, messages ...*v1.ReadRecoveryPointResponse) reading {
	return func(stream grpc.ServerStreamingServer[v1.ReadRecoveryPointResponse]) error {
		for _, message := range messages {
			if err := stream.Send(message); err != nil {
				return err
			}
		}
		return err
	}
}

// holds makes the agent hold a VM of some disks, each read as do says.
func holds(a *fakeAgent, do func(disk string) reading, disks ...string) {
	held := vm("web01", v1.ReplicationState_REPLICATION_STATE_REPLICATING, v1.Health_HEALTH_NORMAL)
	for _, disk := range disks {
		held.Status.Disks = append(held.Status.Disks, &v1.DiskStatus{Id: disk})
	}
	answer(a, "Get", func(*v1.GetReplicationRequest) (*v1.Replication, error) { return held, nil })
	answer(a, "Read", func(r *v1.ReadRecoveryPointRequest) (reading, error) { return do(r.GetDisk()), nil })
}

// whole is a disk of 3 MiB: a sector of data, zeros, and a sector of data at the end.
func whole(disk string) reading {
	return speaks(nil, header(disk, id, 3<<20), data(0, bytes.Repeat([]byte{1}, 512)), zeros(512, 3<<20-1024),
		data(3<<20-512, bytes.Repeat([]byte{2}, 512)))
}

func expectWhole(t *testing.T, path string) {
	t.Helper()
	want := make([]byte, 3<<20)
	copy(want, bytes.Repeat([]byte{1}, 512))
	copy(want[3<<20-512:], bytes.Repeat([]byte{2}, 512))
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s has %d bytes, not what was sent: %v", path, len(got), err)
	}
}

// expectFiles fails unless a directory holds just these.
func expectFiles(t *testing.T, directory string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(directory)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, entry := range entries {
		got = append(got, entry.Name())
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("there are %q, want %q", got, names)
	}
}

func TestExportWritesOneDiskSparse(t *testing.T) {
	a, directory := newAgent(t, "replica"), t.TempDir()
	holds(a, whole, "root")
	file := filepath.Join(directory, "web01.raw")
	a.run("export", "web01", "--point", "0123", file).
		expect(t, 0, "Disk root of the VM web01 as it was at 2026-11-22 21:00:00 +01:00 ("+id+") is in "+file+", 3.0 MiB.\n", "root: 100% of 3.0 MiB")
	expectWhole(t, file)
	expectFiles(t, directory, "web01.raw")
	if got := asked[*v1.ReadRecoveryPointRequest](a)[0]; got.GetVm() != "web01" || got.GetId() != "0123" || got.GetDisk() != "root" {
		t.Errorf("asked for %v", got)
	}
	a.run("export", "web01", file).expect(t, 4, "", "exists (ALREADY_EXISTS)\n  Give another name, or --force")
	if n := len(asked[*v1.ReadRecoveryPointRequest](a)); n != 1 {
		t.Errorf("read %d times", n)
	}
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.run("export", "web01", file, "--force", "-o", "json").expect(t, 0, `"recoveryPoint": "`+id+`"`, "")
	expectWhole(t, file)
}

func TestExportOfSeveralDisksIsOneInstant(t *testing.T) {
	a, directory := newAgent(t, "replica"), t.TempDir()
	holds(a, whole, "root", "data")
	a.run("export", "web01", filepath.Join(directory, "web01.raw")).expect(t, 2, "", "has 2 disks and "+directory+"/web01.raw is no directory")
	a.run("export", "web01", directory, "--disk", "swap").expect(t, 3, "", `there is no disk "swap"`)
	a.run("export", "web01", directory).expect(t, 0, "data.raw", "")
	expectFiles(t, directory, "data.raw", "root.raw")
	expectWhole(t, filepath.Join(directory, "data.raw"))
	a.run("export", "web01", filepath.Join(directory, "d.raw"), "--disk", "data").expect(t, 0, "d.raw", "")
	expectWhole(t, filepath.Join(directory, "d.raw"))

	// A cycle that comes between the disks' headers makes them be opened anew.
	again, points := t.TempDir(), []string{id, strings.Repeat("f", 32), strings.Repeat("f", 32)}
	n := 0
	holds(a, func(disk string) reading {
		point := points[min(n, len(points)-1)]
		n++
		return speaks(nil, header(disk, point, 512), zeros(0, 512))
	}, "root", "data")
	a.run("export", "web01", again).expect(t, 0, "("+strings.Repeat("f", 32)+")", "")
	holds(a, func(disk string) reading {
		return speaks(nil, header(disk, strings.Repeat(disk[:1], 32), 512), zeros(0, 512))
	}, "a", "b")
	a.run("export", "web01", t.TempDir()).expect(t, 4, "", "was replaced 5 times")
	holds(a, whole, "../etc")
	a.run("export", "web01", directory).expect(t, 1, "", `disk name "../etc" is not allowed`)
}

// What a stream says is never trusted, and what does not come whole leaves no file.
func TestExportOfWhatDoesNotCome(t *testing.T) {
	a, directory := newAgent(t, "replica"), t.TempDir()
	file := filepath.Join(directory, "web01.raw")
	for name, c := range map[string]struct {
		do   reading
		code int
		says string
	}{
		"nothing":              {speaks(nil), 1, "ended before its header"},
		"no header":            {speaks(nil, zeros(0, 512)), 1, "does not begin with a header"},
		"another disk":         {speaks(nil, header("data", id, 512)), 1, `of disk "data"`},
		"no point":             {speaks(nil, header("root", "x", 512)), 1, "of no recovery point"},
		"no size":              {speaks(nil, header("root", id, 0)), 1, "cannot have 0 bytes"},
		"an odd size":          {speaks(nil, header("root", id, 513)), 1, "cannot have 513 bytes"},
		"too large":            {speaks(nil, header("root", id, 64<<40+512)), 1, "cannot have"},
		"a short stream":       {speaks(nil, header("root", id, 4096), zeros(0, 512)), 1, "ended after 512 of 4096 bytes"},
		"a gap":                {speaks(nil, header("root", id, 4096), data(512, make([]byte, 512))), 1, "512 bytes at 512 where 0 of 4096"},
		"an overlap":           {speaks(nil, header("root", id, 4096), zeros(0, 1024), zeros(512, 3584)), 1, "at 512 where 1024"},
		"too much":             {speaks(nil, header("root", id, 512), zeros(0, 1024)), 1, "1024 bytes at 0"},
		"a length that wraps":  {speaks(nil, header("root", id, 4096), zeros(0, 512), zeros(512, 1<<63-1)), 1, "at 512"},
		"a negative length":    {speaks(nil, header("root", id, 4096), zeros(0, -512)), 1, "-512 bytes"},
		"a large chunk":        {speaks(nil, header("root", id, 4<<20), data(0, make([]byte, 1<<20+1))), 1, "1048577 bytes"},
		"an empty message":     {speaks(nil, header("root", id, 512), &v1.ReadRecoveryPointResponse{}), 1, "0 bytes"},
		"two headers":          {speaks(nil, header("root", id, 512), header("root", id, 512)), 1, "0 bytes"},
		"what the agent fails": {speaks(failure.New(failure.Exhausted, failure.ReasonLimit, "too many readers"), header("root", id, 512)), 1, "too many readers (LIMIT_EXCEEDED)"},
		"no such point":        {speaks(failure.New(failure.NotFound, failure.ReasonNotFound, "no point 0123")), 3, "no point 0123"},
	} {
		holds(a, func(string) reading { return c.do }, "root")
		got := a.run("export", "web01", file)
		if got.code != c.code || !strings.Contains(got.err, c.says) || got.out != "" {
			t.Errorf("%s: %+v", name, got)
		}
		expectFiles(t, directory)
	}
}

func TestExportThatIsInterruptedOrCannotWrite(t *testing.T) {
	a, directory := newAgent(t, "replica"), t.TempDir()
	ctx, interrupt := contextOf(t)
	holds(a, func(disk string) reading {
		return func(stream grpc.ServerStreamingServer[v1.ReadRecoveryPointResponse]) error {
			_ = speaks(nil, header(disk, id, 4096), zeros(0, 512))(stream)
			interrupt()
			<-stream.Context().Done()
			return stream.Context().Err()
		}
	}, "root")
	a.runContext(ctx, "export", "web01", filepath.Join(directory, "x.raw")).expect(t, 130, "", "")
	expectFiles(t, directory)
	holds(a, whole, "root")
	a.run("export", "web01", filepath.Join(directory, "none", "x.raw")).expect(t, 4, "", "in a directory that exists")
	if err := os.Symlink("/dev/null", filepath.Join(directory, "link")); err != nil {
		t.Fatal(err)
	}
	a.run("export", "web01", filepath.Join(directory, "link"), "--force").expect(t, 4, "", "link is no file")
}
