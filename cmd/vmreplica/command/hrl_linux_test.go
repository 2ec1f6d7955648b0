package command_test

import (
	"encoding/json"
	"strings"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/hrl"
	"vmreplica/internal/replication"
)

func TestHRLInfo(t *testing.T) {
	dir, err := durable.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	identity := replication.NewID()
	log, err := hrl.Create(dir, "root.hrl", hrl.Disk{Identity: identity, Size: 1 << 30, Stamp: disk.Stamp{Inode: 1}})
	if err != nil {
		t.Fatal(err)
	}
	path := dir.Path("root.hrl")
	run(t.Context(), nil, "hrl", "info", path).expect(t, 0, "lost (TrackingLost): the log root.hrl is new", "")
	if err := log.Begin(replication.NewID()); err != nil {
		t.Fatal(err)
	}
	if err := log.Mark(4096, 3*4096); err != nil {
		t.Fatal(err)
	}
	open := run(t.Context(), nil, "hrl", "info", path)
	open.expect(t, 0, path+"\n  Disk                  "+string(identity), "")
	if !strings.Contains(open.out, "  State                 open, or left open") || !strings.Contains(open.out, "  Tracking              exact\n") {
		t.Errorf("got %s", open.out)
	}
	if err := log.Close(disk.Stamp{Inode: 1}); err != nil {
		t.Fatal(err)
	}
	closed := run(t.Context(), nil, "hrl", "info", path, "-o", "json")
	closed.expect(t, 0, "", "")
	var said struct {
		Disk          string
		DiskSizeBytes int64
		ClosedCleanly bool
		Exact         bool
		Loss          any
		MarkedBytes   [2]int64
	}
	if err := json.Unmarshal([]byte(closed.out), &said); err != nil {
		t.Fatal(err)
	}
	if said.Disk != string(identity) || said.DiskSizeBytes != 1<<30 || !said.ClosedCleanly || !said.Exact || said.Loss != nil ||
		said.MarkedBytes[0]+said.MarkedBytes[1] != 3*4096 {
		t.Errorf("got %+v", said)
	}
}
