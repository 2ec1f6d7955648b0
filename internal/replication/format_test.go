package replication_test

import (
	"strings"
	"testing"

	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

func TestFormatsAreWords(t *testing.T) {
	for _, f := range replication.Formats {
		if err := replication.CheckFormat(f); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
	for _, f := range []replication.Format{"", "RAW", "vmdk", "vpc"} {
		err := replication.CheckFormat(f)
		if err == nil || failure.Find(err).Reason != failure.ReasonUnsupported || !strings.Contains(err.Error(), "vhdx") {
			t.Errorf("%q: %v", f, err)
		}
	}
	for d, known := range map[replication.Differencing]bool{"": true, "qcow2": true, "vhdx": false, "raw": false} {
		if err := replication.CheckDifferencing(d); (err == nil) != known {
			t.Errorf("%q: %v", d, err)
		}
	}
}

func TestWhatWasRecordedIsNotWhatWasAsked(t *testing.T) {
	asked := replication.DiskSpec{ID: "root", Path: "/i/root", Format: "qcow2", ReplicaFormat: "qcow2"}
	recorded := asked
	recorded.Backing = []string{"/i/golden"}
	if !asked.SameAs(recorded) {
		t.Error("the recorded chain counts as asked for")
	}
	before := replication.DiskSpec{ID: "root", Path: "/i/root", Format: "raw"}
	stated := before
	stated.ReplicaFormat = "raw"
	if !before.SameAs(stated) {
		t.Error("a record of before formats could be stated is another one")
	}
	for name, change := range map[string]func(*replication.DiskSpec){
		"id":             func(d *replication.DiskSpec) { d.ID = "x" },
		"path":           func(d *replication.DiskSpec) { d.Path = "/x" },
		"format":         func(d *replication.DiskSpec) { d.Format = "vhd" },
		"replica format": func(d *replication.DiskSpec) { d.ReplicaFormat = "vhdx" },
		"differencing":   func(d *replication.DiskSpec) { d.Differencing = "qcow2" },
	} {
		other := asked
		change(&other)
		if asked.SameAs(other) {
			t.Errorf("another %s does not count", name)
		}
	}
}
