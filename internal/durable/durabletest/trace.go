package durabletest

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var rewriteTraces = flag.Bool("rewrite-traces", false, "write the golden traces anew instead of comparing")

// Log is a copy of the operations so far.
func (r *Recorder) Log() []Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.log)
}

// Trace is the operations so far, one in a line. Kept beside a test, it shows a missing sync as a difference.
func (r *Recorder) Trace() string {
	var text strings.Builder
	for _, op := range r.Log() {
		text.WriteString(op.String() + "\n")
	}
	return text.String()
}

// CheckTrace compares the trace with the file testdata/name.trace; with -rewrite-traces the file is written.
func CheckTrace(t *testing.T, name, trace string) {
	t.Helper()
	file := filepath.Join("testdata", name+".trace")
	if *rewriteTraces {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(file, []byte(trace), 0o644)); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("there is no golden trace %s; -rewrite-traces writes it", file)
	}
	if err != nil {
		t.Fatal(err)
	}
	if trace != string(want) {
		t.Errorf("operations differ from %s\ngot:\n%swant:\n%s", file, trace, want)
	}
}
