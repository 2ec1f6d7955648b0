package qcow2_test

import (
	"strings"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

func TestSealNamesTheParent(t *testing.T) {
	file := written(t)
	for _, parent := range []string{"base.raw", "../other/b", strings.Repeat("p", 1023), "/absolute:with/colon", "x"} {
		o, err := qcow2.Open(file, durable.ReadWrite)
		must(t, err)
		must(t, o.Seal(disk.Parent{Name: parent, Format: "raw"}))
		_, err = o.WriteAt(content(7), 0)
		must(t, err)
		must(t, o.Close())
		o, err = qcow2.Open(file, durable.ReadOnly)
		must(t, err)
		if name, format := o.Parent(); name != parent || format != "raw" {
			t.Errorf("parent %q, %q, want %q", name, format, parent)
		}
		if got := make([]byte, grain); true {
			_, err = o.ReadAt(got, 0)
			must(t, err)
			if !carries(got, 7) {
				t.Errorf("after sealing the content is %x…", got[:8])
			}
		}
	}
}

func TestBeforeSealThereIsNoParent(t *testing.T) {
	o, err := qcow2.Open(written(t), durable.ReadOnly)
	must(t, err)
	if name, format := o.Parent(); name != "" || format != "" {
		t.Errorf("parent %q, %q", name, format)
	}
}

func TestSealRefusesNamesThatMeanSomethingElse(t *testing.T) {
	cases := []struct{ parent, format, message string }{
		{"", "raw", "1 to 1023 bytes"},
		{strings.Repeat("p", 1024), "raw", "1 to 1023 bytes"},
		{"json:{}", "raw", "protocol"},
		{"nbd://host/export", "raw", "protocol"},
		{"a\x00b", "raw", "zero byte"},
		{"base", "", "disk format"},
		{"base", "RAW", "disk format"},
		{"base", strings.Repeat("f", 64), "disk format"},
	}
	file := written(t)
	for _, c := range cases {
		o, err := qcow2.Open(file, durable.ReadWrite)
		must(t, err)
		refused(t, o.Seal(disk.Parent{Name: c.parent, Format: c.format}), failure.Invalid, c.message)
		if name, _ := o.Parent(); name != "" {
			t.Errorf("a refused seal left the parent %q", name)
		}
	}
}

// TestTheParentsNameIsDurableBeforeItIsUsed looks at the order of writing, the first time and again.
func TestTheParentsNameIsDurableBeforeItIsUsed(t *testing.T) {
	file := written(t)
	o, err := qcow2.Open(file, durable.ReadWrite)
	must(t, err)
	used := make(map[int64]bool)
	for range 4 {
		var ops []op
		file.watch = func(o op) error { ops = append(ops, o); return nil }
		must(t, o.Seal(disk.Parent{Name: "parent", Format: "qcow2"}))
		ops = ops[len(ops)-4:]
		if ops[0].kind != opWrite || ops[1].kind != opSync || ops[2].kind != opWrite || ops[3].kind != opSync {
			t.Fatalf("sealing does %+v", ops)
		}
		if ops[2].off != 0 || len(ops[2].data) != 512 || ops[0].off < 512 {
			t.Errorf("the header is written at %d, %d bytes, after the name at %d", ops[2].off, len(ops[2].data), ops[0].off)
		}
		used[ops[0].off] = true
	}
	if len(used) != 2 {
		t.Errorf("names were written at %v, want two places by turns", used)
	}
}
