package hrl

import (
	"testing"

	"vmreplica/internal/durable"
	"vmreplica/internal/replication"
)

// TestAPowerLossIsLoss gives the header of an open log the boot id of another boot, which is what the host's next one
// finds.
func TestAPowerLossIsLoss(t *testing.T) {
	dir, err := durable.OpenDir(t.TempDir())
	check(t, err)
	defer dir.Close()
	d := Disk{Identity: replication.NewID(), Size: 1 << 30}
	for what, test := range map[string]struct {
		closed bool
		want   Cause
	}{"open": {false, NotClosedCleanly}, "closed": {true, None}} {
		l, err := Create(dir, what, d)
		check(t, err)
		check(t, l.Begin(replication.NewID()))
		check(t, l.Mark(0, 1))
		if test.closed {
			check(t, l.settle(d.Stamp))
		}
		check(t, l.changed(func(h *header) { h.BootID = "an earlier one" }))
		check(t, l.Abandon())
		l, err = Open(dir, what, d)
		check(t, err)
		if l.Loss().Cause != test.want || l.LiveBytes() != BlockSize {
			t.Errorf("%s: %v with %d bytes", what, l.Loss(), l.LiveBytes())
		}
		check(t, l.Abandon())
		l, err = Open(dir, what, d)
		check(t, err)
		if l.Loss().Cause != test.want {
			t.Errorf("%s, opened again: %v", what, l.Loss())
		}
		check(t, l.Abandon())
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
