package main

import (
	"fmt"
	"io"
	"time"
)

// blockSize is what blocks are counted in, in bytes.
const blockSize = 64 << 10

// transfer is the figures of one run, in bytes.
type transfer struct {
	name                                string
	took                                time.Duration
	compared, differing, sent, received int64
}

// report is what the demo shows at its end.
type report struct {
	steps     []string
	transfers []transfer
}

func (r *report) step(heading string, took time.Duration) {
	r.steps = append(r.steps, fmt.Sprintf("%7.1f s  %s", took.Seconds(), heading))
}

func (r *report) transfer(t transfer) { r.transfers = append(r.transfers, t) }

func (r *report) print(out io.Writer) {
	fmt.Fprintf(out, "%-10s %12s %12s %12s %12s %9s\n", "", "compared", "differed", "sent", "received", "time")
	for _, t := range r.transfers {
		fmt.Fprintf(out, "%-10s %12s %12s %12s %12s %7.1f s\n",
			t.name, size(t.compared), size(t.differing), size(t.sent), size(t.received), t.took.Seconds())
	}
	fmt.Fprintln(out, "\nThe replica was byte-equal to the machine's disk after each run (cmp, e2fsck, sqlite3).")
	fmt.Fprintln(out, "How long each step took, with the checks:")
	for _, step := range r.steps {
		fmt.Fprintln(out, step)
	}
}

// size is bytes as people read them.
func size(bytes int64) string {
	units := []string{"B", "KiB", "MiB", "GiB"}
	value, unit := float64(bytes), 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", bytes)
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}
