package durable_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"syscall"
	"testing"

	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
)

// contents are what the tests write one after the other; each is longer than a page.
func contents(i int) []byte {
	return []byte(fmt.Sprintf("%d:", i) + strings.Repeat(string(rune('a'+i)), 6000+i))
}

// replaceThrice writes three contents to a file through dir and marks each that was promised.
func replaceThrice(recorder *durabletest.Recorder, dir durable.Dir) error {
	if err := dir.Mkdir("vm"); err != nil {
		return err
	}
	for i := range 3 {
		if err := durable.WriteFile(dir, "vm/record", contents(i)); err != nil {
			return err
		}
		recorder.Mark(i)
	}
	return nil
}

// judge says what is wrong with a host that crashed while replaceThrice ran.
func judge(crash *durabletest.Crash) error {
	promised := -1
	for _, mark := range crash.Marks() {
		promised = mark.(int)
	}
	found, err := readAll(crash.Dir(), "vm/record")
	if errors.Is(err, fs.ErrNotExist) && promised < 0 {
		return nil
	}
	if err != nil {
		return err
	}
	for i := max(0, promised); i < 3; i++ {
		if string(found) == string(contents(i)) {
			return nil
		}
	}
	return fmt.Errorf("content %d was promised, found %d bytes of another", promised, len(found))
}

func readAll(dir durable.Dir, name string) ([]byte, error) {
	file, err := dir.Open(name, durable.ReadOnly)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return nil, err
	}
	data := make([]byte, size)
	if _, err := file.ReadAt(data, 0); err != nil && err != io.EOF {
		return nil, err
	}
	return data, nil
}

func TestRecorderDirectory(t *testing.T) {
	durabletest.TestDir(t, func(t *testing.T) durable.Dir { return durabletest.New().Dir() })
}

func TestWriteFileTrace(t *testing.T) {
	recorder := durabletest.New()
	check(t, replaceThrice(recorder, recorder.Dir()))
	durabletest.CheckTrace(t, "write-file", recorder.Trace())
}

func TestWriteFileSurvivesEveryCrash(t *testing.T) {
	recorder := durabletest.New()
	check(t, replaceThrice(recorder, recorder.Dir()))
	states := 0
	for crash := range recorder.Crashes(durabletest.Options{Random: 40}) {
		states++
		if err := judge(crash); err != nil {
			t.Fatalf("%s: %v", crash, err)
		}
		recoverAgain(t, crash)
	}
	if states < 100 {
		t.Errorf("only %d states were tried", states)
	}
}

// recoverAgain writes the file anew over what a crash left, and crashes that as well.
func recoverAgain(t *testing.T, first *durabletest.Crash) {
	if err := first.Dir().Mkdir("vm"); err != nil {
		t.Fatalf("%s: %v", first, err)
	}
	before, _ := readAll(first.Dir(), "vm/record")
	if err := durable.WriteFile(first.Dir(), "vm/record", contents(5)); err != nil {
		t.Fatalf("%s: %v", first, err)
	}
	first.Mark(5)
	for second := range first.Crashes(durabletest.Options{Random: 2}) {
		found, err := readAll(second.Dir(), "vm/record")
		isNew := string(found) == string(contents(5))
		isOld := string(found) == string(before) && len(second.Marks()) == 0
		if !isNew && !isOld {
			t.Fatalf("%s, then %s: found %d bytes, %v", first, second, len(found), err)
		}
	}
}

// renameFirst is a Dir that renames before the content is synced.
type renameFirst struct {
	durable.Dir
	late []durable.File
}

type lateFile struct {
	durable.File
	dir *renameFirst
}

func (d *renameFirst) Create(name string) (durable.File, error) {
	file, err := d.Dir.Create(name)
	return &lateFile{file, d}, err
}

func (f *lateFile) Sync() error {
	f.dir.late = append(f.dir.late, f.File)
	return nil
}

func (f *lateFile) Close() error { return nil }

func (d *renameFirst) Rename(oldName, newName string) error {
	err := errors.Join(d.Dir.Rename(oldName, newName), d.Dir.Sync(path.Dir(newName)))
	for _, file := range d.late {
		err = errors.Join(err, file.Sync(), file.Close())
	}
	d.late = nil
	return err
}

func TestMutantsOfWriteFileAreCaught(t *testing.T) {
	plain := func(r *durabletest.Recorder) durable.Dir { return r.Dir() }
	mutants := []struct {
		name string
		drop func(durabletest.Op) bool
		dir  func(*durabletest.Recorder) durable.Dir
	}{
		{"the file's sync is dropped", durabletest.SyncOf("*"), plain},
		{"the directory's sync is dropped", durabletest.SyncDirOf("*"), plain},
		{"the sync of one name only is dropped", durabletest.SyncOf("record.*"), plain},
		{"it is renamed before it is synced", nil, func(r *durabletest.Recorder) durable.Dir {
			return &renameFirst{Dir: r.Dir()}
		}},
	}
	for _, mutant := range mutants {
		t.Run(mutant.name, func(t *testing.T) {
			recorder := durabletest.New()
			recorder.Drop(mutant.drop)
			check(t, replaceThrice(recorder, mutant.dir(recorder)))
			for crash := range recorder.Crashes(durabletest.Options{}) {
				if judge(crash) != nil {
					return
				}
			}
			t.Error("no crash showed it")
		})
	}
}

func TestWriteFileFailsCleanlyAtEveryOperation(t *testing.T) {
	faults := map[string]error{
		"an I/O error": syscall.EIO, "no space": syscall.ENOSPC, "a short write": durabletest.Short(syscall.ENOSPC),
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			for k := 1; ; k++ {
				recorder := durabletest.New()
				recorder.FailAt(k, fault)
				err := replaceThrice(recorder, recorder.Dir())
				if !recorder.Faulted() {
					return
				}
				if !errors.Is(err, fault) {
					t.Fatalf("operation %d failed and the answer was %v", k, err)
				}
				if _, err := recorder.Dir().Stat("vm/record.tmp"); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("operation %d failed and the temporary file is left: %v", k, err)
				}
				for crash := range recorder.Crashes(durabletest.Options{}) {
					if err := judge(crash); err != nil {
						t.Fatalf("operation %d failed, %s: %v", k, crash, err)
					}
				}
			}
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
