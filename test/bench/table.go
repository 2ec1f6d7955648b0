package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// row is one thing to be reached.
type row struct {
	name, measured, limit string
	reached               bool
}

// table is what the run found.
type table struct {
	facts, notes []string
	rows         []row
}

// add is a row for a figure that is to be at most limit.
func (t *table) add(name string, measured, limit float64, format string) {
	t.rows = append(t.rows, row{name, fmt.Sprintf(format, measured), "≤ " + fmt.Sprintf(format, limit), measured <= limit})
	progress("%s: "+format, name, measured)
}

// atLeast is a row for a figure that is to be at least limit.
func (t *table) atLeast(name string, measured, limit float64, format string) {
	t.rows = append(t.rows, row{name, fmt.Sprintf(format, measured), "≥ " + fmt.Sprintf(format, limit), measured >= limit})
	progress("%s: "+format, name, measured)
}

// note is a line beneath the table.
func (t *table) note(format string, args ...any) {
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
	progress(format, args...)
}

func (t *table) print(out io.Writer) error {
	fmt.Fprintln(out)
	for _, fact := range t.facts {
		fmt.Fprintln(out, fact)
	}
	fmt.Fprintln(out)
	writer := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(writer, "CASE\tMEASURED\tREACH\tRESULT")
	missed := 0
	for _, r := range t.rows {
		result := "pass"
		if !r.reached {
			result, missed = "FAIL", missed+1
		}
		fmt.Fprintf(writer, "%s\t%s\t%s\t%s\n", r.name, r.measured, r.limit, result)
	}
	if err := writer.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	for _, note := range t.notes {
		fmt.Fprintln(out, note)
	}
	_, err := fmt.Fprintf(out, "\n%d of %d reached. A figure over its limit does not fail the run; a replica that differs does.\n",
		len(t.rows)-missed, len(t.rows))
	return err
}

// machineFacts are what the figures depend on.
func machineFacts(ctx context.Context, b *bench) []string {
	kernel, err := output(ctx, "uname", "-sr")
	if err != nil {
		kernel = runtime.GOOS
	}
	rsync, _ := output(ctx, "rsync", "--version")
	rsync, _, _ = strings.Cut(rsync, "\n")
	return []string{
		fmt.Sprintf("%d cores of %s, %s, %s of memory", runtime.NumCPU(), procValue("/proc/cpuinfo", "model name"),
			strings.TrimSpace(kernel), procValue("/proc/meminfo", "MemTotal")),
		fmt.Sprintf("image of %s, medians of %d interleaved rounds, load %s at the start; %s", bytesText(b.size), b.rounds, load(),
			strings.Join(strings.Fields(rsync), " ")),
	}
}

// procValue is the value of a "key : value" line of /proc; a question mark where there is none.
func procValue(path, key string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return "?"
	}
	for line := range strings.Lines(string(content)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return "?"
}

// load is the machine's over the last minute. The bench itself is about 2; more is somebody else's.
func load() string {
	content, err := os.ReadFile("/proc/loadavg")
	if fields := strings.Fields(string(content)); err == nil && len(fields) > 0 {
		return fields[0]
	}
	return "?"
}

// median of one or more figures.
func median[T cmp.Ordered](figures []T) T {
	sorted := slices.Sorted(slices.Values(figures))
	return sorted[len(sorted)/2]
}

// medianOf is the median of one figure of many measurements.
func medianOf[M any, T cmp.Ordered](measurements []M, figure func(M) T) T {
	figures := make([]T, len(measurements))
	for i, m := range measurements {
		figures[i] = figure(m)
	}
	return median(figures)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func bytesText(n int64) string {
	switch {
	case n >= tib:
		return fmt.Sprintf("%.1f TiB", float64(n)/float64(tib))
	case n >= gib:
		return fmt.Sprintf("%.1f GiB", float64(n)/float64(gib))
	case n >= mib:
		return fmt.Sprintf("%.1f MiB", float64(n)/float64(mib))
	}
	return fmt.Sprintf("%.1f KiB", float64(n)/float64(kib))
}
