package chain_test

import (
	"strings"
	"testing"

	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/storage"
	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	"vmreplica/internal/state/statetest"
)

// TestAFormatIsKeptWithItsDisk prepares disks of every format and asks again, for the same and for others.
func TestAFormatIsKeptWithItsDisk(t *testing.T) {
	files, err := storage.Open(t.TempDir(), nil)
	check(t, err)
	t.Cleanup(func() { check(t, files.Close()) })
	registry := chain.NewRegistry(chain.NewTable(statetest.New(durabletest.New()), nil), files)
	asked := func(disks ...chain.PrepareDisk) chain.Prepare {
		return chain.Prepare{VM: "web01", UID: id("0"), Primary: "p", Directory: "p/web01", Term: 1, Disks: disks}
	}
	named := func(name string, f replication.Format, d replication.Differencing) chain.PrepareDisk {
		g := geometry()
		g.ID = name
		return chain.PrepareDisk{Geometry: g, Format: f, Differencing: d}
	}
	disks := []chain.PrepareDisk{
		named("raw", "raw", ""), named("vhd", "vhd", ""), named("vhdx", "vhdx", ""), named("qcow2", "qcow2", ""),
		named("over", "vhdx", "qcow2"),
	}
	record, err := registry.Prepare(asked(disks...))
	check(t, err)
	want := []chain.LayerKind{
		{Format: "qcow2", Extension: ".qcow2"}, {Format: "vhd", Extension: ".avhd"}, {Format: "vhdx", Extension: ".avhdx"},
		{Format: "qcow2", Extension: ".qcow2"}, {Format: "qcow2", Extension: ".qcow2"},
	}
	for i, d := range record.Disks {
		if d.Base.Format != disks[i].Format || d.Layer != want[i] {
			t.Errorf("disk %s is kept as %s with layers %+v", d.ID, d.Base.Format, d.Layer)
		}
	}
	if _, err := registry.Prepare(asked(disks...)); err != nil {
		t.Errorf("the same again: %v", err)
	}
	for _, other := range []chain.PrepareDisk{named("raw", "vhdx", ""), named("raw", "raw", "qcow2")} {
		again := append([]chain.PrepareDisk{other}, disks[1:]...)
		if _, err := registry.Prepare(asked(again...)); reason(err) != failure.ReasonAlreadyExists {
			t.Errorf("%+v: %v", other, err)
		}
	}
}

// TestWhatNoBaseCanBeIsRefused asks for disks that their format cannot hold, and for names that layers will have.
func TestWhatNoBaseCanBeIsRefused(t *testing.T) {
	files, err := storage.Open(t.TempDir(), nil)
	check(t, err)
	t.Cleanup(func() { check(t, files.Close()) })
	registry := chain.NewRegistry(chain.NewTable(statetest.New(durabletest.New()), nil), files)
	large := chain.Geometry{ID: "root", SizeBytes: 2041 << 30, LogicalSectorSize: 512}
	sectors := chain.Geometry{ID: "root", SizeBytes: size, LogicalSectorSize: 4096}
	for _, c := range []struct {
		disks []chain.PrepareDisk
		want  string
	}{
		{[]chain.PrepareDisk{{Geometry: large, Format: "vhd"}}, failure.ReasonLimit},
		{[]chain.PrepareDisk{{Geometry: sectors, Format: "vhd"}}, failure.ReasonSectorMismatch},
		{[]chain.PrepareDisk{{Geometry: sectors, Format: "qcow2"}}, failure.ReasonSectorMismatch},
		{[]chain.PrepareDisk{{Geometry: geometry(), Format: "vmdk"}}, failure.ReasonUnsupported},
		{[]chain.PrepareDisk{{Geometry: geometry(), Format: "raw"}, {Geometry: chain.Geometry{
			ID: "root.0123abcd.avhdx", SizeBytes: size, LogicalSectorSize: 512}, Format: "raw"}}, failure.ReasonInvalidName},
	} {
		p := chain.Prepare{VM: "web01", UID: id("0"), Primary: "p", Directory: "p/web01", Term: 1, Disks: c.disks}
		for what, call := range map[string]func() error{
			"check": func() error { return registry.CheckPrepare(p) },
			"make":  func() error { _, err := registry.Prepare(p); return err },
		} {
			if err := call(); reason(err) != c.want || !strings.Contains(err.Error(), "web01") {
				t.Errorf("%s %+v: %v, want %s", what, c.disks, err, c.want)
			}
		}
	}
	for balloon, layer := range map[string]string{
		"p/root.0123abcd.balloon": "p/root.0123abcd.avhdx", "p/a.b.0123abcd.balloon": "p/a.b.0123abcd.qcow2",
	} {
		if got := chain.BalloonFile(layer); got != balloon {
			t.Errorf("the balloon of %s is %s", layer, got)
		}
	}
}
