package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// flip changes one byte of a file.
func flip(t *testing.T, path string, at int64) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer file.Close()
	old := make([]byte, 1)
	_, err = file.ReadAt(old, at)
	must(t, err)
	old[0] ^= 0xff
	_, err = file.WriteAt(old, at)
	must(t, err)
}

func TestEveryDifferenceIsFound(t *testing.T) {
	for name, at := range map[string]int64{
		"the first byte": 0, "in the last piece": 48*mib + 17, "in a hole": 7*mib + 3, "the last byte": 64*mib - 1,
	} {
		t.Run(name, func(t *testing.T) {
			one, other := filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "other")
			must(t, scatter(one, 64*mib, 4*mib, 1))
			must(t, duplicate(t.Context(), one, other))
			must(t, compareData(one, other))
			must(t, compare(t.Context(), one, other))
			for _, path := range []string{one, other} {
				flip(t, path, at)
				if compareData(one, other) == nil || compare(t.Context(), one, other) == nil {
					t.Errorf("byte %d of %s differs and nothing was found", at, path)
				}
				flip(t, path, at)
			}
		})
	}
}

func TestRewritingChangesWhatItSays(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image")
	must(t, scatter(image, 8*mib, 4*mib, 1))
	before, err := os.ReadFile(image)
	must(t, err)
	content, err := rewriteShared(image, 8*mib, 20, 2)
	must(t, err)
	after, err := os.ReadFile(image)
	must(t, err)
	var changed []byte
	for off := 0; off < len(after); off += subBlock {
		if part := after[off : off+subBlock]; !bytes.Equal(part, before[off:off+subBlock]) {
			changed = append(changed, part...)
		}
	}
	if len(changed) != 20*subBlock || !bytes.Equal(changed, content) {
		t.Errorf("%d bytes changed, %d were said to", len(changed), len(content))
	}
}

func TestSocketsAreCountedWithoutWhatWasSentAgain(t *testing.T) {
	before, err := parseSockets("0 0 127.0.0.1:1001 127.0.0.1:7443 cubic bytes_sent:100 bytes_acked:100 bytes_received:40 segs_out:3\n")
	must(t, err)
	after, err := parseSockets("0 0 127.0.0.1:1001 127.0.0.1:7443 cubic bytes_sent:1100 bytes_retrans:300 bytes_received:50\n" +
		"0 0 127.0.0.1:1002 127.0.0.1:7443 cubic bytes_sent:7 bytes_received:1\n")
	must(t, err)
	if n, err := after.since(before); n != 700+10+8 || err != nil {
		t.Errorf("got %d and %v, want 718", n, err)
	}
	if _, err := before.since(after); err == nil {
		t.Error("a connection that is gone was not missed")
	}
}

func TestProxyNotesWhenTheThresholdIsPassed(t *testing.T) {
	far, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer far.Close()
	p, err := startProxy(far.Addr().String())
	must(t, err)
	defer p.stop()
	near, err := net.Dial("tcp", p.address())
	must(t, err)
	defer near.Close()
	end, err := far.Accept()
	must(t, err)
	defer end.Close()
	p.watch(1000)
	for _, step := range []struct {
		bytes  int
		passed bool
	}{{999, false}, {1, true}} {
		_, err = near.Write(make([]byte, step.bytes))
		must(t, err)
		_, err = io.ReadFull(end, make([]byte, step.bytes))
		must(t, err)
		if at, passed := p.when(); passed != step.passed || passed && time.Since(at) > time.Minute {
			t.Errorf("after %d bytes more: passed %t at %v", step.bytes, passed, at)
		}
	}
}
