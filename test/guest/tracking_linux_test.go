package guest_test

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vmreplica/test/guest"
)

// tracker is the program of that name with its directory: two disks, and their replicas.
type tracker struct {
	t       *testing.T
	program string
	faults  string
	dir     string
	served  bool
	process *exec.Cmd
	words   io.WriteCloser
	answers *bufio.Scanner
}

var disks = []string{"a", "b"}

// newTracker makes the images and serves them.
func newTracker(t *testing.T, faults string) *tracker {
	tr := &tracker{t: t, dir: t.TempDir(), faults: faults, program: filepath.Join(t.TempDir(), "tracker")}
	output, err := exec.Command("go", "build", "-buildvcs=false", "-tags", "faults", "-o", tr.program, "./tracker").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	for _, name := range disks {
		must(t, os.WriteFile(tr.file(name+".raw"), nil, 0o600))
		must(t, os.Truncate(tr.file(name+".raw"), size))
		guest.Format(t, tr.file(name+".raw"))
	}
	must(t, os.Mkdir(tr.file("oracle"), 0o700))
	tr.start()
	return tr
}

func (tr *tracker) file(name string) string { return filepath.Join(tr.dir, name) }

// start starts the program and waits until it serves.
func (tr *tracker) start() {
	tr.t.Helper()
	tr.process = exec.Command(tr.program, append([]string{tr.dir}, disks...)...)
	tr.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	tr.process.Stderr = os.Stderr
	tr.process.Env = append(os.Environ(), "VMREPLICA_FAULTS=oracle,"+tr.faults, "VMREPLICA_ORACLE="+tr.file("oracle"))
	output, err := tr.process.StdoutPipe()
	must(tr.t, err)
	tr.words, err = tr.process.StdinPipe()
	must(tr.t, err)
	must(tr.t, tr.process.Start())
	tr.answers = bufio.NewScanner(output)
	tr.t.Cleanup(tr.kill)
	again := tr.served
	tr.served = true
	if said := tr.answer("serving "); again && strings.Contains(said, "lost") {
		tr.t.Fatalf("a tracker that goes on: %s", said)
	}
}

// answer is what a line of the program says after the beginning that is waited for.
func (tr *tracker) answer(beginning string) string {
	tr.t.Helper()
	for tr.answers.Scan() {
		if rest, is := strings.CutPrefix(tr.answers.Text(), beginning); is {
			return rest
		}
	}
	tr.t.Fatal("the tracker ended")
	return ""
}

func (tr *tracker) kill() {
	_ = tr.process.Process.Kill()
	_ = tr.process.Wait()
}

// do says a word, and answers the name of the cut.
func (tr *tracker) do(word string) string {
	tr.t.Helper()
	_, err := fmt.Fprintln(tr.words, word)
	must(tr.t, err)
	return tr.answer("cut ")
}

// exact says whether the replicas are, bit for bit, what the disks were at the cut.
func (tr *tracker) exact(cut string) bool {
	tr.t.Helper()
	want, err := os.ReadFile(tr.file("oracle/" + cut))
	must(tr.t, err)
	var found strings.Builder
	for _, name := range disks {
		fmt.Fprintf(&found, "%s %s\n", name, digest(tr.t, tr.file(name+".replica")))
	}
	return found.String() == string(want)
}

func digest(t testing.TB, path string) string {
	t.Helper()
	file, err := os.Open(path)
	must(t, err)
	defer file.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, file)
	must(t, err)
	return fmt.Sprintf("%x", sum.Sum(nil))
}

func (tr *tracker) exports() (exported []guest.Disk) {
	for _, name := range disks {
		exported = append(exported, guest.Exported(tr.file("nbd.sock"), name))
	}
	return exported
}

// TestAGuestsReplicaIsEveryCut ships a guest's writes in rounds and cuts, and begins anew in between, while its tracker is
// killed: after each cut the replica is the primary at that instant, and in the end a guest lives on it.
func TestAGuestsReplicaIsEveryCut(t *testing.T) {
	t.Parallel()
	tr := newTracker(t, "")
	tr.do("begin")
	g := guest.Start(t, guest.Write, tr.exports()...)
	g.AwaitRows(1)
	var committed int
	for i := range 8 {
		g.AwaitRows(5)
		word := "cut"
		switch i % 4 {
		case 0:
			word = "round"
		case 1:
			tr.do("abort")
		case 2:
			word = "begin"
		case 3:
			tr.kill()
			tr.start()
		}
		committed = g.Committed()
		if cut := tr.do(word); !tr.exact(cut) {
			t.Fatalf("after %s %d the replica is not what the primary was", word, i)
		}
	}
	g.Kill()
	found := guest.Examine(t, guest.Raw(tr.file("a.replica")), guest.Raw(tr.file("b.replica")))
	if fault := found.Fault(committed); fault != "" {
		t.Fatal(fault)
	}
}

// TestTheCutOracleFindsFaults leaves one step out of the tracking each time.
func TestTheCutOracleFindsFaults(t *testing.T) {
	for _, control := range []struct {
		faults string
		// words are said until the replica is not what the primary was.
		words []string
		// exact is how often the replica must be what the primary was: nothing is left out.
		exact int
	}{
		{faults: "late-writes", words: []string{"begin"}, exact: 4},
		{faults: "begin-without-drain,late-writes", words: []string{"begin"}},
		{faults: "no-copy-before-write", words: []string{"cut"}},
		{faults: "drop-delta", words: []string{"cut"}},
		{faults: "clear-on-receipt", words: []string{"abort", "cut"}},
	} {
		t.Run(control.faults, func(t *testing.T) {
			t.Parallel()
			tr := newTracker(t, control.faults)
			tr.do("begin")
			g := guest.Start(t, guest.Write, tr.exports()...)
			g.AwaitRows(1)
			for i := range cmp.Or(control.exact, 40) {
				g.AwaitRows(1)
				time.Sleep(time.Duration(rand.IntN(600)) * time.Millisecond) // not when a row was just committed
				for _, word := range control.words {
					if tr.exact(tr.do(word)) || word == "abort" {
						continue
					}
					if control.exact > 0 {
						t.Errorf("%s %d: the replica is not what the primary was", word, i)
					}
					return
				}
			}
			if control.exact == 0 {
				t.Error("the replica was what the primary was each time")
			}
		})
	}
}
