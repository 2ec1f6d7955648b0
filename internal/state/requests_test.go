package state_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/failure"
	"vmreplica/internal/state"
	"vmreplica/internal/state/statetest"
)

// office does requests and counts the work.
type office struct {
	requests state.Requests
	store    state.Store
	now      time.Time
}

func newOffice(store state.Store) *office {
	o := &office{store: store, now: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)}
	o.requests = state.Requests{Clock: func() time.Time { return o.now }, Limit: 5}
	return o
}

// do asks for a creation and answers how many were made by then.
func (o *office) do(request state.Request, fail error) (answer string, err error) {
	err = o.store.Update(func(tx state.Tx) error {
		kept, err := o.requests.Do(tx, request, func() ([]byte, error) {
			made, err := tx.NextSequence("made")
			return fmt.Appendf(nil, "made %d", made), errors.Join(err, fail)
		})
		answer = string(kept)
		return err
	})
	return answer, err
}

func TestARequestIsDoneOnce(t *testing.T) {
	first := state.Request{Caller: "alice", ID: "1", Method: "Create", Body: []byte("web01")}
	with := func(change func(*state.Request)) state.Request {
		changed := first
		change(&changed)
		return changed
	}
	tests := []struct {
		name    string
		request state.Request
		answer  string
		reason  string
	}{
		{"the same request has the same answer", first, "made 1", ""},
		{"another id is another request", with(func(r *state.Request) { r.ID = "2" }), "made 2", ""},
		{"another caller's id is another request", with(func(r *state.Request) { r.Caller = "bob" }), "made 2", ""},
		{"no id is never the same request", with(func(r *state.Request) { r.ID = "" }), "made 2", ""},
		{"another method is refused", with(func(r *state.Request) { r.Method = "Delete" }), "", failure.ReasonInvalidArgument},
		{"another body is refused", with(func(r *state.Request) { r.Body = nil }), "", failure.ReasonInvalidArgument},
		{"an endless id is refused", with(func(r *state.Request) { r.ID = strings.Repeat("x", 129) }), "", failure.ReasonInvalidArgument},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := newOffice(statetest.New(durabletest.New()))
			if answer, err := o.do(first, nil); answer != "made 1" || err != nil {
				t.Fatalf("the first was answered %q, %v", answer, err)
			}
			answer, err := o.do(test.request, nil)
			if test.reason != "" {
				expectReason(t, err, test.reason)
				return
			}
			if answer != test.answer || err != nil {
				t.Errorf("answered %q, %v; want %q", answer, err, test.answer)
			}
		})
	}
}

func TestAFailedRequestIsNotKept(t *testing.T) {
	o := newOffice(statetest.New(durabletest.New()))
	request := state.Request{ID: "1"}
	if _, err := o.do(request, errors.New("no")); err == nil {
		t.Fatal("it did not fail")
	}
	if answer, err := o.do(request, nil); answer != "made 1" || err != nil {
		t.Errorf("answered %q, %v", answer, err)
	}
}

func TestAnswersAreKeptADayAndInNumberBounded(t *testing.T) {
	o := newOffice(statetest.New(durabletest.New()))
	id := func(n int) state.Request { return state.Request{ID: fmt.Sprint(n)} }
	expect := func(n int, want string) {
		t.Helper()
		if answer, err := o.do(id(n), nil); answer != want || err != nil {
			t.Errorf("request %d was answered %q, %v; want %q", n, answer, err, want)
		}
	}
	for n := 1; n <= 8; n++ {
		expect(n, fmt.Sprintf("made %d", n))
	}
	expect(4, "made 4") // the newest five are kept
	expect(3, "made 9")
	o.now = o.now.Add(24*time.Hour - time.Second)
	expect(8, "made 8")
	o.now = o.now.Add(time.Second)
	expect(8, "made 10")
	check(t, o.store.View(func(tx state.Tx) error {
		for _, bucket := range []string{"requests", "request-ages"} {
			count := 0
			for range tx.Entries(bucket, "") {
				count++
			}
			if count != 1 {
				t.Errorf("%d entries are left in %s", count, bucket)
			}
		}
		return nil
	}))
}

func TestARequestAskedAgainAfterAnyCrashIsDoneOnce(t *testing.T) {
	recorder := durabletest.New()
	request := state.Request{ID: "1", Method: "Create"}
	if _, err := newOffice(statetest.New(recorder)).do(request, nil); err != nil {
		t.Fatal(err)
	}
	states := 0
	for crash := range recorder.Crashes(durabletest.Options{}) {
		states++
		o := newOffice(statetest.New(crash.Recorder))
		for range 2 {
			if answer, err := o.do(request, nil); answer != "made 1" || err != nil {
				t.Errorf("%s: answered %q, %v", crash, answer, err)
			}
		}
	}
	if states != 2 {
		t.Errorf("%d states were tried", states)
	}
}

type limits struct{ Bandwidth, Transfers int }

func TestASettingHasItsDefaultUntilItIsSet(t *testing.T) {
	store := statetest.New(durabletest.New())
	setting := state.Setting[limits]{Name: "limits", Default: limits{Transfers: 3}}
	get := func() (value limits) {
		check(t, store.View(func(tx state.Tx) (err error) {
			value, err = setting.Get(tx)
			return err
		}))
		return value
	}
	if got := get(); got != (limits{Transfers: 3}) {
		t.Errorf("the default is %v", got)
	}
	check(t, store.Update(func(tx state.Tx) error { return tx.Put("settings", "limits", []byte(`{"Bandwidth":7}`)) }))
	if got := get(); got != (limits{7, 3}) {
		t.Errorf("with one field stored it is %v", got)
	}
	check(t, store.Update(func(tx state.Tx) error { return setting.Set(tx, limits{1, 2}) }))
	if got := get(); got != (limits{1, 2}) {
		t.Errorf("once set it is %v", got)
	}
	check(t, store.Update(func(tx state.Tx) error { return tx.Put("settings", "limits", []byte(`[`)) }))
	if err := store.View(func(tx state.Tx) error { return second(setting.Get(tx)) }); err == nil {
		t.Error("a value that cannot be read is taken")
	}
}

func TestATableKeepsRecordsAndNamesTheOneItCannotRead(t *testing.T) {
	store := statetest.New(durabletest.New())
	table := state.Table[limits]{Bucket: "t"}
	check(t, store.Update(func(tx state.Tx) error {
		return errors.Join(table.Put(tx, "a", limits{1, 2}), table.Put(tx, "b", limits{3, 4}),
			table.Delete(tx, "a"), tx.Put("t", "c", []byte("{")))
	}))
	check(t, store.View(func(tx state.Tx) error {
		if _, found, err := table.Get(tx, "a"); found || err != nil {
			t.Errorf("the deleted record: %v, %v", found, err)
		}
		if record, found, err := table.Get(tx, "b"); !found || err != nil || record != (limits{3, 4}) {
			t.Errorf("the kept record: %v, %v, %v", record, found, err)
		}
		var keys []string
		for row := range table.Rows(tx, "") {
			keys = append(keys, fmt.Sprint(row.Key, row.Record, row.Err != nil))
		}
		if got := strings.Join(keys, " "); got != "b{3 4} false c{0 0} true" {
			t.Errorf("the rows are %s", got)
		}
		return nil
	}))
}
