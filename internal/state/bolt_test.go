package state_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/failure"
	"vmreplica/internal/state"
	"vmreplica/internal/state/statetest"
)

// childPath makes the test binary a writer of counters instead, which the test kills.
const childPath = "STATE_TEST_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childPath); path != "" {
		fmt.Fprintln(os.Stderr, countUp(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// countUp commits a rising counter and says each one that is durable.
func countUp(path string) error {
	store, err := state.Open(path)
	if err != nil {
		return err
	}
	for {
		n, err := commitNext(store)
		if err != nil {
			return err
		}
		fmt.Println(n)
	}
}

// commitNext raises the counter, kept many times over several pages.
func commitNext(store state.Store) (n uint64, err error) {
	err = store.Update(func(tx state.Tx) error {
		if n, err = tx.NextSequence("counter"); err != nil {
			return err
		}
		for i := range 20 {
			value := make([]byte, 500+100*(n%7))
			binary.BigEndian.PutUint64(value, n)
			if err := tx.Put("counter", strconv.Itoa(i), value); err != nil {
				return err
			}
		}
		return tx.Put("history", fmt.Sprintf("%020d", n), []byte("x"))
	})
	return n, err
}

// committed is the counter that the store holds, an error when its copies differ.
func committed(store state.Store) (n uint64, err error) {
	err = store.View(func(tx state.Tx) error {
		seen := map[uint64]bool{}
		for _, value := range tx.Entries("counter", "") {
			n = binary.BigEndian.Uint64(value)
			seen[n] = true
		}
		history := 0
		for range tx.Entries("history", "") {
			history++
		}
		if len(seen) > 1 || uint64(history) != n {
			return fmt.Errorf("counters %v with a history of %d", seen, history)
		}
		return nil
	})
	return n, err
}

func open(t *testing.T, path string) state.Store {
	t.Helper()
	store, err := state.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func TestBoltStore(t *testing.T) {
	statetest.TestStore(t, func(t *testing.T) state.Store {
		store := open(t, filepath.Join(t.TempDir(), "state.db"))
		t.Cleanup(func() { store.Close() })
		return store
	})
}

func TestMemoryStore(t *testing.T) {
	statetest.TestStore(t, func(t *testing.T) state.Store { return statetest.New(durabletest.New()) })
}

func TestASecondOpenNamesTheFirst(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	store := open(t, path)
	defer store.Close()
	_, err := state.Open(path)
	expectReason(t, err, failure.ReasonStateInUse)
	if me := fmt.Sprintf("(process %d)", os.Getpid()); !strings.Contains(err.Error(), me) {
		t.Errorf("the error does not name %s: %v", me, err)
	}
}

func TestTheFileBelongsToItsUserAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	check(t, open(t, path).Close())
	info, err := os.Stat(path)
	check(t, err)
	if info.Mode() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestAnUnfinishedMakingIsMadeAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	check(t, os.WriteFile(path+".new", make([]byte, 9000), 0o600))
	check(t, open(t, path).Close())
	if _, err := os.Stat(path + ".new"); err == nil {
		t.Error("the unfinished file is still there")
	}
}

func TestANewerFormatIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	store := open(t, path)
	check(t, store.Update(func(tx state.Tx) error { return tx.Put("format", "version", []byte("2")) }))
	check(t, store.Close())
	_, err := state.Open(path)
	expectReason(t, err, failure.ReasonUnsupported)
}

func TestADamagedFileIsAnErrorAndNoCrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	store := open(t, path)
	for range 30 {
		_, err := commitNext(store)
		check(t, err)
	}
	check(t, store.Close())
	whole, err := os.ReadFile(path)
	check(t, err)
	whole = bytes.TrimRight(whole, "\x00")
	refused := 0
	try := func(what string, content []byte) {
		check(t, os.WriteFile(path, content, 0o600))
		err := useOnce(path)
		var known *failure.Error
		isCounter := err != nil && strings.Contains(err.Error(), "history")
		if err != nil && !isCounter && (!errors.As(err, &known) || known.Class != failure.Corrupt) {
			t.Errorf("%s: %v", what, err)
		}
		if err != nil {
			refused++
		}
	}
	for at := 0; at < len(whole); at += 4096 {
		try(fmt.Sprintf("cut at %d", at), whole[:at])
		try(fmt.Sprintf("zeroed from %d", at), append(append([]byte{}, whole[:at]...), make([]byte, len(whole)-at)...))
		changed := append([]byte{}, whole...)
		clear(changed[at:min(at+4096, len(changed))])
		try(fmt.Sprintf("a zeroed page at %d", at), changed)
		copy(changed[at:], strings.Repeat("\xff", 4096))
		try(fmt.Sprintf("a page of ones at %d", at), changed)
	}
	if refused < len(whole)/4096 {
		t.Errorf("only %d damages were noticed", refused)
	}
}

// useOnce opens the file, reads all of it and writes to it.
func useOnce(path string) error {
	store, err := state.Open(path)
	if err != nil {
		return err
	}
	_, err = committed(store)
	if err == nil {
		_, err = commitNext(store)
	}
	return errors.Join(err, store.Close())
}

// second is the error of two results.
func second[T any](_ T, err error) error { return err }

func expectReason(t *testing.T, err error, reason string) {
	t.Helper()
	if err == nil || failure.Find(err).Reason != reason {
		t.Errorf("answered %v, want %s", err, reason)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
}
