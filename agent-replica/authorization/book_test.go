package authorization

import (
	"strings"
	"testing"

	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/failure"
	"vmreplica/internal/state"
	"vmreplica/internal/state/statetest"
)

func TestTheBookRefusesOverlapsAndSaysWhich(t *testing.T) {
	recorder := durabletest.New()
	store := statetest.New(recorder)
	book := NewBook(store, anyDevice)
	create := func(name string, devices ...Device) error {
		return store.Update(func(tx state.Tx) error {
			return book.Create(tx, Entry{Pattern: domain + name, Devices: devices})
		})
	}
	for _, step := range []struct {
		err   error
		wants string
	}{
		{create("pve*", Device{"web01", "root", "/dev/a"}), ""},
		{create("pve1"), domain + "pve*"},
		{create("*"), domain + "pve*"},
		{create("other", Device{"web02", "root", "/dev/a"}), domain + "pve*"},
		{create("other", Device{"web02", "root", "/dev/b"}), ""},
	} {
		switch {
		case step.wants == "" && step.err != nil:
			t.Error(step.err)
		case step.wants != "" && (failure.Find(step.err).Class != failure.Exists || !strings.Contains(step.err.Error(), step.wants)):
			t.Errorf("answered %v, want the name of %s", step.err, step.wants)
		}
	}
	if entry, err := book.Match(primary("pve7")); err != nil || entry.Pattern != domain+"pve*" {
		t.Errorf("pve7 matches %v, %v", entry.Pattern, err)
	}
	if _, err := book.Match(primary("unknown")); failure.Find(err).Reason != failure.ReasonNotAuthorized {
		t.Errorf("an unknown primary: %v", err)
	}
	again := NewBook(statetest.New(recorder), anyDevice)
	if entries, err := again.List(); err != nil || len(entries) != 2 {
		t.Errorf("after a restart: %v, %v", entries, err)
	}
}

func TestEntriesChangeAndGo(t *testing.T) {
	store := statetest.New(durabletest.New())
	book := NewBook(store, anyDevice)
	pattern := domain + "pve1"
	must := func(fn func(state.Tx) error) {
		t.Helper()
		if err := store.Update(fn); err != nil {
			t.Fatal(err)
		}
	}
	must(func(tx state.Tx) error { return book.Create(tx, Entry{Pattern: pattern, QuotaBytes: 5}) })
	must(func(tx state.Tx) error {
		_, err := book.Update(tx, pattern, func(e *Entry) { e.QuotaBytes = 7 })
		return err
	})
	if entry, err := book.Get(pattern); err != nil || entry.QuotaBytes != 7 {
		t.Errorf("after the change: %+v, %v", entry, err)
	}
	err := store.Update(func(tx state.Tx) error {
		_, err := book.Update(tx, pattern, func(e *Entry) { e.QuotaBytes = -1 })
		return err
	})
	if failure.Find(err).Class != failure.Invalid {
		t.Errorf("a quota below nothing: %v", err)
	}
	must(func(tx state.Tx) error { return book.Delete(tx, pattern) })
	for what, err := range map[string]error{
		"get":    func() error { _, err := book.Get(pattern); return err }(),
		"delete": store.Update(func(tx state.Tx) error { return book.Delete(tx, pattern) }),
	} {
		if failure.Find(err).Reason != failure.ReasonNotFound {
			t.Errorf("%s of what is gone: %v", what, err)
		}
	}
	if _, err := book.Match(primary("pve1")); err == nil {
		t.Error("a deleted entry admits")
	}
}
