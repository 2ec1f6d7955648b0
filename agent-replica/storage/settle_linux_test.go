package storage

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vmreplica/agent-replica/chain"
	"vmreplica/internal/durable/durabletest"
)

// A settled base's times are there after the power of a real filesystem was cut, so that its stamp still holds.
func TestTheStampOfASettledBaseHoldsWhenThePowerIsCut(t *testing.T) {
	volume := durabletest.NewVolume(t, 32<<20)
	path := filepath.Join(volume.Path, "root")
	content, err := os.Create(path)
	if err == nil {
		_, err = content.Write(make([]byte, 1<<20))
	}
	if err := errors.Join(err, content.Sync(), content.Close()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // a file's times move by ticks of the kernel's timer
	files, err := Open(volume.Path, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := chain.Base{File: "root"}
	base, err := files.OpenBase(b, 512)
	if err != nil {
		t.Fatal(err)
	}
	_, err = base.WriteAt([]byte{1}, 4096)
	if err := errors.Join(err, base.Flush()); err != nil {
		t.Fatal(err)
	}
	settled, err := files.Settle(b)
	if err != nil {
		t.Fatal(err)
	}
	volume.Cut()
	if err := errors.Join(base.Close(), files.Close()); err != nil {
		t.Fatal(err)
	}
	volume.Restore()
	after, err := os.Stat(path)
	if err != nil || after.ModTime().UnixNano() != settled.ModifiedNanoseconds {
		t.Errorf("the stamp says %d, the file %d, %v", settled.ModifiedNanoseconds, after.ModTime().UnixNano(), err)
	}
}
