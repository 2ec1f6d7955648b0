package guest

import (
	"bytes"
	"io"
	"os"
	"testing"

	"vmreplica/internal/durable"
	"vmreplica/internal/hrl"
)

// Unmarked compares a raw image with its replica, while the agent that has them is killed: how many blocks differ, and how
// many of those its log does not have, which must be none.
func Unmarked(t testing.TB, log, image, replica string) (differing, clean int) {
	t.Helper()
	content := must(os.ReadFile(log))(t)
	info := must(hrl.Inspect(bytes.NewReader(content), int64(len(content))))(t)
	dir := must(durable.OpenDir(t.TempDir()))(t)
	defer dir.Close()
	copied := must(dir.Create("log"))(t)
	must(copied.WriteAt(content, 0))(t)
	must(0, copied.Close())(t)
	// Whatever a copy of a log is taken for, its marks are there.
	marks := must(hrl.Open(dir, "log", hrl.Disk{Identity: info.Identity, Size: info.DiskSize}))(t)
	defer marks.Abandon()
	must(0, marks.Flip())(t)

	first, second := must(os.Open(image))(t), must(os.Open(replica))(t)
	defer first.Close()
	defer second.Close()
	p, q := make([]byte, hrl.BlockSize), make([]byte, hrl.BlockSize)
	for at := int64(0); at < info.DiskSize; at += hrl.BlockSize {
		n := min(hrl.BlockSize, info.DiskSize-at)
		must(io.ReadFull(first, p[:n]))(t)
		must(io.ReadFull(second, q[:n]))(t)
		if bytes.Equal(p[:n], q[:n]) {
			continue
		}
		differing++
		if !must(marks.Marked(at, 1))(t) {
			clean++
		}
	}
	return differing, clean
}

// must is the value of a call that must not fail.
func must[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}
