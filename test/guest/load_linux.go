package guest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Load is fio that writes to an NBD export and reads every block that it wrote again, through QEMU's client for NBD, which
// connects anew for a minute when the server is gone. It is quicker than a guest, and knows what each block must hold.
type Load struct {
	t     testing.TB
	stop  context.CancelFunc
	ended chan error
	runs  int
}

// StartLoad starts fio after fio, each of which writes for two seconds. It ends with the test at the latest.
func StartLoad(t testing.TB, d Disk) *Load {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "load.sock")
	d["node-name"] = "d0"
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	client := exec.Command("qemu-storage-daemon", "--blockdev", string(text), "--nbd-server", "addr.type=unix,addr.path="+socket,
		"--export", "type=nbd,id=load,node-name=d0,name=load,writable=on")
	client.Stderr = os.Stderr
	client.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := client.Start(); err != nil {
		t.Fatalf("%v: make setup", err)
	}
	for deadline := time.Now().Add(bound); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("qemu-storage-daemon does not serve")
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	l := &Load{t: t, stop: stop, ended: make(chan error, 1)}
	go func() { l.ended <- l.run(ctx, socket) }()
	t.Cleanup(func() {
		stop()
		_ = client.Process.Kill()
		_ = client.Wait()
		l.ended <- <-l.ended
	})
	return l
}

func (l *Load) run(ctx context.Context, socket string) error {
	for ; ctx.Err() == nil; l.runs++ {
		fio := exec.Command("fio", "--name=load", "--ioengine=nbd", "--uri=nbd+unix:///load?socket="+socket,
			"--rw=randwrite", "--bsrange=4k-64k", "--iodepth=16", "--fsync=256", "--randrepeat=0",
			"--verify=crc32c", "--verify_backlog=512", "--verify_fatal=1", "--time_based", "--runtime=2")
		fio.Dir = l.t.TempDir()
		if output, err := fio.CombinedOutput(); err != nil {
			return fmt.Errorf("fio: %w: %s", err, output)
		}
	}
	return nil
}

// End lets the present fio finish, and fails the test when one met an error or a block that was not as it was written.
func (l *Load) End() {
	l.t.Helper()
	l.stop()
	err := <-l.ended
	l.ended <- nil
	if err != nil || l.runs == 0 {
		l.t.Errorf("after %d runs: %v", l.runs, err)
	}
}
