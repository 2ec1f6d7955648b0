package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

// lockTimeout is how long Open waits for another process to let go of the file, as one that is ending does.
const lockTimeout = 2 * time.Second

// growth is by how many bytes the file grows at a time.
const growth = 1 << 20

const (
	formatBucket  = "format"
	formatKey     = "version"
	formatVersion = "1"
)

// Open opens the state file, or makes a new one, mode 0600, and its directory, mode 0700. A new file is made beside and put in place whole, so
// a file that is there and damaged is never mistaken for one whose making was cut short. Fails with STATE_IN_USE
// naming the process that has the file open, with Corrupt when it is damaged, and with Unsupported when a newer
// agent wrote it.
func Open(path string) (Store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	dir, err := durable.OpenDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("open the state directory: %w", err)
	}
	defer dir.Close()
	name := filepath.Base(path)
	info, err := dir.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := create(dir, name); err != nil {
			return nil, fmt.Errorf("make the state file %s: %w", path, err)
		}
		info, err = dir.Stat(name)
	}
	if err != nil {
		return nil, fmt.Errorf("open the state file: %w", err)
	}
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("open the state file %s: %w", path, durable.ErrNotRegular)
	case info.Size() == 0:
		return nil, broken(path, "open", &damageError{"it is empty"})
	}
	// Whoever made the name may have ended before syncing it.
	if err := dir.Sync("."); err != nil {
		return nil, fmt.Errorf("make the state file's name durable: %w", err)
	}
	return openExisting(path)
}

func openExisting(path string) (Store, error) {
	db, err := openBolt(path, os.O_RDWR)
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, failure.New(failure.Precondition, failure.ReasonStateInUse,
			"the state file %s is open in %s", path, holder(path)).
			Try("Only one agent may use a state directory: stop the other one, or give this one its own.")
	}
	var host *fs.PathError
	if err != nil && !errors.As(err, &host) {
		err = &damageError{err} // not the host's doing, so the content's
	}
	if err != nil {
		return nil, broken(path, "open", err)
	}
	opened := &store{db: db, path: path}
	if err := opened.View(checkFormat); err != nil {
		return nil, errors.Join(err, opened.Close())
	}
	return opened, nil
}

// create makes a state file that holds only its format. Of two processes that do so at once, one waits for the
// other's lock and then finds the name taken.
func create(dir durable.Dir, name string) error {
	fresh := name + ".new"
	db, err := openBolt(dir.Path(fresh), os.O_RDWR|os.O_CREATE)
	if err != nil && !errors.Is(err, bolterrors.ErrTimeout) {
		// What is left of an earlier attempt.
		if err := dir.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		db, err = openBolt(dir.Path(fresh), os.O_RDWR|os.O_CREATE)
	}
	if err != nil {
		return err
	}
	made := &store{db: db, path: dir.Path(fresh)}
	err = made.Update(func(tx Tx) error { return tx.Put(formatBucket, formatKey, []byte(formatVersion)) })
	if err := errors.Join(err, made.Close()); err != nil {
		return err
	}
	if _, err := dir.Stat(name); err == nil {
		return dir.Remove(fresh)
	}
	if err := dir.Rename(fresh, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// openBolt opens a bbolt file; flags decide whether one is made.
func openBolt(path string, flags int) (db *bbolt.DB, err error) {
	var file *os.File
	err = guard(func() error {
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout:         lockTimeout,
			FreelistType:    bbolt.FreelistMapType,
			InitialMmapSize: mapped(),
			OpenFile: func(path string, _ int, mode os.FileMode) (*os.File, error) {
				file, err = os.OpenFile(path, flags, mode)
				return file, err
			},
		})
		return err
	})
	var damage *damageError
	if errors.As(err, &damage) && file != nil {
		return nil, errors.Join(err, abandon(file)) // a panic leaves it open and locked
	}
	if err == nil {
		db.AllocSize = growth
	}
	return db, err
}

// mapped is how much of the file is mapped from the start, used or not: making the map longer waits for every
// view, and every update would wait with it. Windows would make the file itself that long.
func mapped() int {
	if runtime.GOOS == "windows" {
		return 0
	}
	return 1 << 30
}

func checkFormat(tx Tx) error {
	version := tx.Get(formatBucket, formatKey)
	if string(version) == formatVersion {
		return nil
	}
	return failure.New(failure.Unsupported, failure.ReasonUnsupported,
		"the state file has format %q, and this agent knows %s", version, formatVersion).
		Try("Use the version of the agent that wrote it, or a newer one.")
}
