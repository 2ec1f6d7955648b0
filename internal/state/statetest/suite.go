package statetest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"vmreplica/internal/state"
)

// TestStore checks that a store does what the contract says. open gives an empty one.
func TestStore(t *testing.T, open func(t *testing.T) state.Store) {
	t.Run("an update is kept whole or not at all", func(t *testing.T) { testAtomic(t, open(t)) })
	t.Run("a view sees one instant", func(t *testing.T) { testView(t, open(t)) })
	t.Run("entries come in order and may be changed meanwhile", func(t *testing.T) { testEntries(t, open(t)) })
	t.Run("a sequence never goes back", func(t *testing.T) { testSequence(t, open(t)) })
	t.Run("keys that cannot be are refused", func(t *testing.T) { testKeys(t, open(t)) })
	t.Run("any history reads as a plain map does", func(t *testing.T) { testHistory(t, open(t)) })
	t.Run("a closed store answers nothing", func(t *testing.T) { testClosed(t, open(t)) })
}

var errStop = errors.New("stop")

func testAtomic(t *testing.T, store state.Store) {
	must(t, put(store, "b", "kept", "1"))
	err := store.Update(func(tx state.Tx) error {
		must(t, errors.Join(tx.Put("b", "kept", []byte("2")), tx.Put("c", "new", nil), tx.Delete("b", "kept")))
		return errStop
	})
	if err != errStop {
		t.Errorf("the update answered %v", err)
	}
	if got := dump(t, store, "b", "c"); got != "b/kept=1;" {
		t.Errorf("kept %s", got)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the function's panic was swallowed")
			}
		}()
		store.Update(func(tx state.Tx) error {
			must(t, tx.Put("b", "kept", []byte("3")))
			panic("of the function")
		})
	}()
	if got := dump(t, store, "b"); got != "b/kept=1;" {
		t.Errorf("after a panic kept %s", got)
	}
	must(t, put(store, "b", "empty", ""))
	must(t, store.View(func(tx state.Tx) error {
		if tx.Get("b", "empty") == nil || tx.Get("b", "missing") != nil || tx.Get("missing", "x") != nil {
			t.Error("an empty value and a missing one are not told apart")
		}
		return nil
	}))
}

func testView(t *testing.T, store state.Store) {
	must(t, put(store, "b", "k", "old"))
	inside, done := make(chan struct{}), make(chan error)
	go func() {
		<-inside
		done <- put(store, "b", "k", "new")
	}()
	must(t, store.View(func(tx state.Tx) error {
		close(inside)
		must(t, <-done)
		if got := string(tx.Get("b", "k")); got != "old" {
			t.Errorf("the view sees %q", got)
		}
		if err := tx.Put("b", "k", nil); err == nil {
			t.Error("a view writes")
		}
		return nil
	}))
	if got := dump(t, store, "b"); got != "b/k=new;" {
		t.Errorf("afterwards %s", got)
	}
}

func testEntries(t *testing.T, store state.Store) {
	for i := range 100 {
		must(t, put(store, "b", fmt.Sprintf("%03d", i), "x"))
	}
	must(t, store.Update(func(tx state.Tx) error {
		want := 40
		for key := range tx.Entries("b", "040") {
			if key != fmt.Sprintf("%03d", want) {
				t.Fatalf("yielded %s, want %03d", key, want)
			}
			must(t, tx.Delete("b", key))
			want++
			if want == 60 {
				break
			}
		}
		return nil
	}))
	must(t, store.View(func(tx state.Tx) error {
		count := 0
		for range tx.Entries("b", "") {
			count++
		}
		for range tx.Entries("missing", "") {
			count++
		}
		if count != 80 {
			t.Errorf("%d entries are left", count)
		}
		return nil
	}))
}

func testSequence(t *testing.T, store state.Store) {
	next := func(fail error) (got uint64) {
		err := store.Update(func(tx state.Tx) (err error) {
			got, err = tx.NextSequence("s")
			return errors.Join(err, fail)
		})
		if fail == nil {
			must(t, err)
		}
		return got
	}
	got := []uint64{next(nil), next(errStop), next(nil)}
	if !slices.Equal(got, []uint64{1, 2, 2}) {
		t.Errorf("the numbers are %v", got)
	}
}

func testKeys(t *testing.T, store state.Store) {
	for _, bad := range [][2]string{{"", "k"}, {"b", ""}, {"b", strings.Repeat("k", 32769)}} {
		if err := put(store, bad[0], bad[1], "x"); err == nil {
			t.Errorf("bucket %q took a key of %d bytes", bad[0], len(bad[1]))
		}
	}
	must(t, put(store, "b", "k", "x"))
}

func testHistory(t *testing.T, store state.Store) {
	random := rand.New(rand.NewPCG(7, 7))
	model := map[string]string{}
	for range 60 {
		next := maps.Clone(model)
		fail := random.IntN(4) == 0
		err := store.Update(func(tx state.Tx) error {
			for range random.IntN(8) {
				key := fmt.Sprintf("%02d", random.IntN(20))
				if random.IntN(3) == 0 {
					must(t, tx.Delete("h", key))
					delete(next, key)
					continue
				}
				value := strings.Repeat("v", random.IntN(9000))
				must(t, tx.Put("h", key, []byte(value)))
				next[key] = value
			}
			if fail {
				return errStop
			}
			return nil
		})
		if fail != errors.Is(err, errStop) {
			t.Fatalf("the update answered %v", err)
		}
		if !fail {
			model = next
		}
		want := ""
		for _, key := range slices.Sorted(maps.Keys(model)) {
			want += "h/" + key + "=" + model[key] + ";"
		}
		if dump(t, store, "h") != want {
			t.Fatal("the store differs from the map")
		}
	}
}

func testClosed(t *testing.T, store state.Store) {
	must(t, store.Close())
	nothing := func(state.Tx) error { return nil }
	if store.Update(nothing) == nil || store.View(nothing) == nil {
		t.Error("it does")
	}
}

func put(store state.Store, bucket, key, value string) error {
	return store.Update(func(tx state.Tx) error { return tx.Put(bucket, key, []byte(value)) })
}

func dump(t *testing.T, store state.Store, buckets ...string) string {
	t.Helper()
	var text strings.Builder
	must(t, store.View(func(tx state.Tx) error {
		for _, bucket := range buckets {
			for key, value := range tx.Entries(bucket, "") {
				text.WriteString(bucket + "/" + key + "=" + string(value) + ";")
			}
		}
		return nil
	}))
	return text.String()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
