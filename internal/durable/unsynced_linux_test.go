package durable_test

import (
	"errors"
	"testing"

	"vmreplica/internal/durable"
)

func TestUnsynced(t *testing.T) {
	var u durable.Unsynced
	synced := func(off, n int64, fails error) bool {
		t.Helper()
		called := false
		err := u.Settle(off, n, func() error { called = true; return fails })
		if called && !errors.Is(err, fails) {
			t.Errorf("the error of the sync was %v, and of the call %v", fails, err)
		}
		return called
	}
	if synced(0, 1<<40, nil) {
		t.Error("a sync of what nothing has changed")
	}
	u.Add(100, 50)
	u.Add(300, 10)
	for _, beside := range [][2]int64{{0, 100}, {310, 100}} {
		if synced(beside[0], beside[1], nil) {
			t.Errorf("a sync for %v, which nothing has changed", beside)
		}
	}
	if !synced(309, 100, errors.New("broken")) {
		t.Error("no sync for what has changed")
	}
	if !synced(100, 1, nil) {
		t.Error("a failed sync was taken for one that succeeded")
	}
	if synced(100, 300, nil) {
		t.Error("a second sync of what is synced")
	}
}
