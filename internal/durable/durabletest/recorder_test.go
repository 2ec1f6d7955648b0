package durabletest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"syscall"
	"testing"

	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
)

// reached is every content of the file "a" that a crash may leave, as text; "none" when it has no name.
func reached(t *testing.T, recorder *durabletest.Recorder, options durabletest.Options) []string {
	t.Helper()
	found := map[string]bool{}
	for crash := range recorder.Crashes(options) {
		found[contentOf(t, crash.Dir(), "a")] = true
	}
	var texts []string
	for text := range found {
		texts = append(texts, text)
	}
	slices.Sort(texts)
	return texts
}

func contentOf(t *testing.T, dir durable.Dir, name string) string {
	t.Helper()
	file, err := dir.Open(name, durable.ReadOnly)
	if errors.Is(err, fs.ErrNotExist) {
		return "none"
	}
	check(t, err)
	defer file.Close()
	size, err := file.Size()
	check(t, err)
	data := make([]byte, size)
	if _, err := file.ReadAt(data, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return string(bytes.ReplaceAll(data, []byte{0}, []byte{'0'}))
}

// started is a recorder with a durable file "a" that holds text, and a handle of it.
func started(t *testing.T, text string) (*durabletest.Recorder, durable.File) {
	t.Helper()
	recorder := durabletest.New()
	file, err := recorder.Dir().Create("a")
	check(t, err)
	_, err = file.WriteAt([]byte(text), 0)
	check(t, errors.Join(err, file.Sync(), recorder.Dir().Sync(".")))
	return recorder, file
}

func TestCrashesReachWhatTheModelAllows(t *testing.T) {
	tests := []struct {
		name string
		work func(t *testing.T, recorder *durabletest.Recorder, file durable.File)
		want []string
	}{
		{"nothing unsynced, one state", func(*testing.T, *durabletest.Recorder, durable.File) {}, []string{"old"}},
		{"two writes survive in any combination", func(t *testing.T, r *durabletest.Recorder, f durable.File) {
			put(t, f, 0, "N")
			put(t, f, 2, "W")
		}, []string{"NlW", "Nld", "olW", "old"}},
		{"a synced write is not lost, a later one may be", func(t *testing.T, r *durabletest.Recorder, f durable.File) {
			put(t, f, 0, "N")
			check(t, f.Sync())
			put(t, f, 2, "W")
		}, []string{"NlW", "Nld", "old"}},
		{"a file may have its new size without its content", func(t *testing.T, r *durabletest.Recorder, f durable.File) {
			put(t, f, 3, "er")
		}, []string{"old", "old00", "older"}},
		{"truncating and punching may be lost", func(t *testing.T, r *durabletest.Recorder, f durable.File) {
			check(t, f.Truncate(2))
			check(t, f.Punch(0, 1))
		}, []string{"0l", "0ld", "ol", "old"}},
		{"a removal may be lost until the directory is synced", func(t *testing.T, r *durabletest.Recorder, f durable.File) {
			check(t, r.Dir().Remove("a"))
		}, []string{"none", "old"}},
		{"a rename is whole or not at all", func(t *testing.T, r *durabletest.Recorder, f durable.File) {
			b, err := r.Dir().Create("b")
			check(t, err)
			put(t, b, 0, "new")
			check(t, b.Sync())
			check(t, r.Dir().Rename("b", "a"))
		}, []string{"new", "old"}},
		{"what a failed sync left is never safe again", func(t *testing.T, r *durabletest.Recorder, f durable.File) {
			put(t, f, 0, "N")
			r.FailAt(r.Ops()+1, syscall.EIO)
			if err := f.Sync(); !errors.Is(err, syscall.EIO) {
				t.Fatalf("the sync answered %v", err)
			}
			again, err := r.Dir().Open("a", durable.ReadWrite)
			check(t, err)
			put(t, again, 1, "E")
			check(t, again.Sync())
		}, []string{"NEd", "Nld", "oEd", "old"}},
		{"a short write may leave its part", func(t *testing.T, r *durabletest.Recorder, f durable.File) {
			r.FailAt(r.Ops()+1, durabletest.Short(syscall.ENOSPC))
			if n, err := f.WriteAt([]byte("NE"), 0); n != 1 || !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("the write answered %d, %v", n, err)
			}
		}, []string{"Nld", "old"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			recorder, file := started(t, "old")
			from := recorder.Ops()
			test.work(t, recorder, file)
			if got := reached(t, recorder, durabletest.Options{From: from}); !slices.Equal(got, test.want) {
				t.Errorf("reached %q, want %q", got, test.want)
			}
		})
	}
}

func TestAWriteIsTornAtSectors(t *testing.T) {
	recorder, file := started(t, "")
	from := recorder.Ops()
	put(t, file, 0, string(bytes.Repeat([]byte("x"), 2048)))
	var sizes []string
	for _, text := range reached(t, recorder, durabletest.Options{From: from}) {
		sizes = append(sizes, fmt.Sprintf("%d of %d", bytes.Count([]byte(text), []byte("x")), len(text)))
	}
	slices.Sort(sizes)
	want := []string{"0 of 0", "0 of 2048", "1024 of 1024", "1024 of 2048", "1536 of 1536", "2048 of 2048", "512 of 512"}
	if !slices.Equal(sizes, want) {
		t.Errorf("reached %q, want %q", sizes, want)
	}
}

func TestARenameBetweenDirectoriesNeedsBothSynced(t *testing.T) {
	recorder, _ := started(t, "old")
	check(t, recorder.Dir().Mkdir("b"))
	check(t, recorder.Dir().Rename("a", "b/a"))
	check(t, recorder.Dir().Sync("b"))
	from := recorder.Ops()
	if got := reached(t, recorder, durabletest.Options{From: from}); !slices.Equal(got, []string{"none", "old"}) {
		t.Errorf("with one directory synced reached %q", got)
	}
	check(t, recorder.Dir().Sync("."))
	from = recorder.Ops()
	if got := reached(t, recorder, durabletest.Options{From: from}); !slices.Equal(got, []string{"none"}) {
		t.Errorf("with both directories synced reached %q", got)
	}
}

func TestAStepIsAtomicAndOneThatFailedIsInDoubt(t *testing.T) {
	recorder := durabletest.New()
	check(t, recorder.Step("k", "one", 1))
	recorder.FailAt(recorder.Ops()+1, syscall.EIO)
	if err := recorder.Step("k", "two", 2); !errors.Is(err, syscall.EIO) {
		t.Fatalf("the step answered %v", err)
	}
	if recorder.Value("k") != 1 {
		t.Errorf("the failed step is seen")
	}
	found := map[any]bool{}
	for crash := range recorder.Crashes(durabletest.Options{From: 1}) {
		found[crash.Value("k")] = true
	}
	if len(found) != 2 || !found[1] || !found[2] {
		t.Errorf("found %v", found)
	}
}

func TestMarksBelongToTheirPosition(t *testing.T) {
	recorder, file := started(t, "old")
	recorder.Mark("first")
	put(t, file, 0, "N")
	check(t, file.Sync())
	recorder.Mark("second")
	for crash := range recorder.Crashes(durabletest.Options{}) {
		text := contentOf(t, crash.Dir(), "a")
		if slices.Contains(crash.Marks(), "first") && text == "none" || slices.Contains(crash.Marks(), "second") && text != "Nld" {
			t.Errorf("%s: marks %v with content %q", crash, crash.Marks(), text)
		}
	}
}

func TestCapacityIsCountedInPages(t *testing.T) {
	recorder, file := started(t, "old")
	recorder.SetCapacity(recorder.Used() + 3*4096)
	check(t, file.Allocate(4096, 2*4096))
	put(t, file, 4096, string(make([]byte, 2*4096))) // its space was reserved
	put(t, file, 3*4096, "x")
	if _, err := file.WriteAt([]byte("x"), 4*4096); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("beyond the capacity: %v", err)
	}
	if free, err := recorder.Dir().Free(); free != 0 || err != nil {
		t.Errorf("free %d, %v", free, err)
	}
	check(t, file.Punch(4096, 2*4096))
	put(t, file, 4*4096, "x")
	check(t, recorder.Dir().Remove("a"))
	if free, _ := recorder.Dir().Free(); free >= 5*4096 {
		t.Errorf("an open file's space was given back")
	}
	check(t, file.Close())
	if recorder.Used() != 0 {
		t.Errorf("%d bytes are still taken", recorder.Used())
	}
}

func TestReadsFailWhereAsked(t *testing.T) {
	recorder, file := started(t, "old")
	recorder.FailRead(2, syscall.EIO)
	for i := 1; i <= 3; i++ {
		_, err := file.ReadAt(make([]byte, 1), 0)
		if errors.Is(err, syscall.EIO) != (i == 2) {
			t.Errorf("read %d answered %v", i, err)
		}
	}
}

func TestHugeSparseFilesAreCheap(t *testing.T) {
	recorder, file := started(t, "old")
	check(t, file.Truncate(64<<40))
	put(t, file, 63<<40, "far")
	check(t, file.Allocate(1<<30, 1<<30))
	start, end, err := file.SeekData(4096)
	if start != 63<<40 || end != 63<<40+4096 || err != nil {
		t.Errorf("found [%d, %d), %v", start, end, err)
	}
	check(t, file.Punch(4096, 64<<40-4096))
	if used := recorder.Used(); used != 4096 {
		t.Errorf("%d bytes are taken", used)
	}
}

func put(t *testing.T, file durable.File, off int64, text string) {
	t.Helper()
	_, err := file.WriteAt([]byte(text), off)
	check(t, err)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// BenchmarkCrashes is a merge of 16 blocks of 64 KiB: what most users of the recorder enumerate.
func BenchmarkCrashes(b *testing.B) {
	recorder := durabletest.New()
	dir := recorder.Dir()
	base, _ := dir.Create("base")
	base.Truncate(16 << 20)
	base.Sync()
	dir.Sync(".")
	for i := range int64(16) {
		base.WriteAt(bytes.Repeat([]byte{1}, 64<<10), i<<20)
	}
	base.Sync()
	recorder.Step("state", "done", 1)
	states := 0
	for b.Loop() {
		for crash := range recorder.Crashes(durabletest.Options{}) {
			states++
			file, _ := crash.Dir().Open("base", durable.ReadWrite)
			if file != nil {
				file.Close()
			}
		}
	}
	b.ReportMetric(float64(states)/b.Elapsed().Seconds(), "states/s")
}
