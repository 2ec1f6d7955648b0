package merge

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/replication"
)

// firstCopy prepares an empty replica and copies into its bases.
func firstCopy(r *durabletest.Recorder, w *world) (models, error) {
	if _, err := w.registry.Prepare(w.prepare(false)); err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	if err := w.vm().Acquire(); err != nil {
		return nil, err
	}
	empty := models{}
	for _, id := range diskIDs {
		empty[id] = make([]byte, w.kind.bytes())
	}
	rng := rand.New(rand.NewPCG(1, 6))
	content, err := w.receive(rng, 1, replication.KindInitial, empty)
	if err != nil {
		return nil, errors.Join(err, w.vm().Release())
	}
	if err := w.commit(1, content); err != nil {
		return nil, errors.Join(err, w.vm().Release())
	}
	r.Mark("committed")
	return content, w.vm().Release()
}

// TestEveryCrashOfTheFirstCopy restarts in the middle of the preparation and the first copy: what was committed
// stays, and what was not is done again from where it was, over the same files.
func TestEveryCrashOfTheFirstCopy(t *testing.T) {
	for _, c := range []struct {
		kind    kind
		options durabletest.Options
	}{
		{kind{base: "raw"}, durabletest.Options{}},
		{kind{base: "vhdx", size: 2 << 20}, durabletest.Options{Random: 1, Singles: 1, Every: 2}},
		{kind{base: "vhd", size: 2 << 20}, durabletest.Options{Random: 1, Singles: 1}},
		{kind{base: "qcow2", size: 2 << 20}, durabletest.Options{Random: 1, Singles: 1}},
	} {
		t.Run(string(c.kind.base), func(t *testing.T) {
			if testing.Short() && c.kind.base != "raw" {
				t.Skip("one goroutine, long")
			}
			everyCrashOfTheFirstCopy(t, c.kind, c.options)
		})
	}
}

func everyCrashOfTheFirstCopy(t *testing.T, k kind, options durabletest.Options) {
	r := durabletest.New()
	want, err := firstCopy(r, openWorld(r, k))
	if err != nil {
		t.Fatal(err)
	}
	states := 0
	for c := range r.Crashes(options) {
		states++
		w := openWorld(c.Recorder, k)
		record, err := w.vm().Record()
		committed := err == nil && record.Lineage != ""
		if len(c.Marks()) > 0 && !committed {
			t.Fatalf("%s: the commit is lost", c)
		}
		if err == nil && record.Prepared {
			if err := w.checkCursors(); err != nil {
				t.Fatalf("%s: %v", c, err)
			}
		}
		if !committed {
			if _, err := firstCopy(c.Recorder, w); err != nil {
				t.Fatalf("%s: again: %v", c, err)
			}
		}
		content, err := w.view()
		if err != nil {
			t.Fatalf("%s: %v", c, err)
		}
		if wrong := differs(content, []models{want}); wrong != "" {
			t.Fatalf("%s: %s", c, wrong)
		}
	}
	if states < 100 {
		t.Errorf("only %d states", states)
	}
}
