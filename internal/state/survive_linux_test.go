package state_test

import (
	"bufio"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/failure"
)

func TestCommitsOutliveKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	random := rand.New(rand.NewPCG(1, 2))
	var last uint64
	for kill := range 60 {
		acknowledged := killAfter(t, path, random.IntN(12), time.Duration(random.IntN(20_000))*time.Microsecond)
		last = max(last, acknowledged)
		store := open(t, path)
		found, err := committed(store)
		check(t, errors.Join(err, store.Close()))
		if found < last || acknowledged > 0 && found > acknowledged+1 {
			t.Fatalf("kill %d: %d was acknowledged, %d is there", kill, last, found)
		}
		last = found
	}
	if last < 60 {
		t.Errorf("only %d commits were made", last)
	}
}

// killAfter runs a writer, kills it once it acknowledged so many commits, or after delay when that is none, and
// answers the last that it acknowledged.
func killAfter(t *testing.T, path string, commits int, delay time.Duration) (last uint64) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childPath+"="+path)
	var complaint strings.Builder
	child.Stderr = &complaint
	output, err := child.StdoutPipe()
	check(t, err)
	check(t, child.Start())
	lines := bufio.NewReader(output)
	next := func() bool {
		line, err := lines.ReadString('\n')
		if err != nil {
			return false
		}
		last, err = strconv.ParseUint(strings.TrimSpace(line), 10, 64)
		check(t, err)
		return true
	}
	if commits == 0 {
		<-time.After(delay)
	}
	for range commits {
		if !next() {
			t.Fatalf("the writer ended: %s", &complaint)
		}
	}
	check(t, child.Process.Kill())
	for next() {
	}
	child.Wait()
	return last
}

func TestCommitsOutliveAPowerCut(t *testing.T) {
	volume := durabletest.NewVolume(t, 64<<20)
	path := filepath.Join(volume.Path, "state.db")
	var last uint64
	for cut := range 5 {
		store := open(t, path)
		for range 1 + cut*7 {
			n, err := commitNext(store)
			check(t, err)
			last = n
		}
		check(t, os.WriteFile(filepath.Join(volume.Path, "unsynced"), []byte("lost"), 0o600))
		volume.Cut()
		expectReason(t, second(commitNext(store)), failure.ReasonStateFailed)
		expectReason(t, second(committed(store)), failure.ReasonStateFailed)
		store.Close()
		volume.Restore()
		if _, err := os.Stat(filepath.Join(volume.Path, "unsynced")); err == nil {
			t.Errorf("cut %d: the volume lost nothing", cut)
		}
		store = open(t, path)
		found, err := committed(store)
		check(t, errors.Join(err, store.Close()))
		if found != last && found != last+1 {
			t.Fatalf("cut %d: %d was acknowledged, %d is there", cut, last, found)
		}
	}
}

func TestWantOfSpaceLeavesTheStoreUsable(t *testing.T) {
	path := t.TempDir()
	if output, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", path).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v\n%s", err, output)
	}
	defer exec.Command("umount", path).Run()
	store := open(t, filepath.Join(path, "state.db"))
	defer store.Close()
	last, err := commitNext(store)
	check(t, err)
	ballast := filepath.Join(path, "ballast")
	fill(t, ballast)
	for err == nil {
		var n uint64
		if n, err = commitNext(store); err == nil {
			last = n
		}
	}
	expectReason(t, err, failure.ReasonStorageFull)
	if found, err := committed(store); err != nil || found != last {
		t.Errorf("found %d, %v; %d was acknowledged", found, err, last)
	}
	check(t, os.Remove(ballast))
	if n, err := commitNext(store); err != nil || n != last+1 {
		t.Errorf("with room again committed %d, %v", n, err)
	}
}

func fill(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	check(t, err)
	defer file.Close()
	for {
		if _, err := file.Write(make([]byte, 4096)); err != nil {
			return
		}
	}
}
