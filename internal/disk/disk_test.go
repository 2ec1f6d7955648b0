package disk_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"vmreplica/internal/disk"
)

func TestCheckRange(t *testing.T) {
	const size = 1 << 20
	for _, r := range [][2]int64{{0, 0}, {0, size}, {size, 0}, {size - 1, 1}, {4096, 512}} {
		must(t, disk.CheckRange(size, r[0], r[1]))
	}
	for _, r := range [][2]int64{{-1, 0}, {0, -1}, {0, size + 1}, {size, 1}, {size + 1, 0}, {math.MaxInt64, 1},
		{1, math.MaxInt64}, {math.MaxInt64, math.MaxInt64}, {math.MinInt64, 0}, {0, math.MinInt64}} {
		if err := disk.CheckRange(size, r[0], r[1]); !errors.Is(err, disk.ErrRange) {
			t.Errorf("%d bytes at %d: %v", r[1], r[0], err)
		}
	}
}

func TestCheckSize(t *testing.T) {
	good := map[int64]int{512: 512, 4096: 4096, 1<<20 + 512: 512, disk.MaxSize: 4096}
	for size, sector := range good {
		must(t, disk.CheckSize(size, sector))
	}
	bad := []struct {
		size   int64
		sector int
	}{{0, 512}, {-512, 512}, {511, 512}, {513, 512}, {512, 4096}, {4608, 4096}, {disk.MaxSize + 512, 512}, {4096, 520}, {4096, 0}}
	for _, b := range bad {
		if disk.CheckSize(b.size, b.sector) == nil {
			t.Errorf("%d bytes in sectors of %d were accepted", b.size, b.sector)
		}
	}
}

// TestEveryFieldOfAStampTells changes one field at a time.
func TestEveryFieldOfAStampTells(t *testing.T) {
	before := disk.Stamp{Device: 1, Inode: 2, SizeBytes: 512, ModifiedNanoseconds: 3, ChangedNanoseconds: 4, BootID: "a",
		DiskSequence: 5, SectorsWritten: 6, Serial: "s"}
	if difference := before.Difference(before); difference != "" {
		t.Errorf("it differs from itself: %s", difference)
	}
	// Those that may be an older image or another disk.
	reverted := map[string]bool{"another file": true, "size": true, "went back": true, "serial": true}
	cases := map[string]func(*disk.Stamp){
		"another file or device": func(s *disk.Stamp) { s.Device++ },
		"another file":           func(s *disk.Stamp) { s.Inode++ },
		"size":                   func(s *disk.Stamp) { s.SizeBytes++ },
		"modification time":      func(s *disk.Stamp) { s.ModifiedNanoseconds++ },
		"went back":              func(s *disk.Stamp) { s.ModifiedNanoseconds-- },
		"change time":            func(s *disk.Stamp) { s.ChangedNanoseconds++ },
		"restarted":              func(s *disk.Stamp) { s.BootID = "b" },
		"set up anew":            func(s *disk.Stamp) { s.DiskSequence++ },
		"2 sectors":              func(s *disk.Stamp) { s.SectorsWritten += 2 },
		"serial":                 func(s *disk.Stamp) { s.Serial = "" },
		"stands on":              func(s *disk.Stamp) { s.Backing = "b" },
	}
	on := before.On(before)
	if before.On() != before || on == before || on != before.On(before) || on == before.On(before, before) {
		t.Error("a stamp does not tell what its image stands on")
	}
	for want, change := range cases {
		now := before
		change(&now)
		if difference := before.Difference(now); !strings.Contains(difference, want) {
			t.Errorf("%q, want %q", difference, want)
		}
		if before.Reverted(now) != reverted[want] {
			t.Errorf("%s: reverted is %v", want, before.Reverted(now))
		}
		if want != "stands on" && before.On(now) == on {
			t.Errorf("%s: a change below does not show", want)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
