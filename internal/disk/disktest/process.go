package disktest

import (
	"errors"
	"io"
	"os"
	"runtime"
	"testing"

	"vmreplica/internal/durable"
)

// OneGoroutine leaves a long test of one goroutine out of a short run, which is there for the race detector.
func OneGoroutine(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("one goroutine, long")
	}
}

// TotalAllocated is how many bytes this process has allocated until now, those given back included.
func TotalAllocated() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.TotalAlloc
}

// Export copies what a file holds to a new file of the host, for another program to read: its data, and holes where it
// has them.
func Export(path string, from durable.File) error {
	to, err := os.Create(path)
	if err != nil {
		return err
	}
	defer to.Close()
	size, err := from.Size()
	if err != nil {
		return err
	}
	for at := int64(0); ; {
		start, end, err := from.SeekData(at)
		if errors.Is(err, io.EOF) {
			return to.Truncate(size)
		}
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(to, start), io.NewSectionReader(from, start, end-start)); err != nil {
			return err
		}
		at = end
	}
}
