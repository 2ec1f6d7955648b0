package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
)

// WriteFile makes data the whole content of name, durably: it is written beside, synced, renamed over, and the
// directory synced. After an error, as after a crash, name holds either what it held or data, whole. The name
// with ".tmp" at its end is the function's own: one call for a name at a time, and a file left there by a crash
// is written anew.
func WriteFile(dir Dir, name string, data []byte) error {
	temporary := name + ".tmp"
	if err := dir.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove what an earlier write left: %w", err)
	}
	if err := writeNew(dir, temporary, data); err != nil {
		return err
	}
	if err := dir.Rename(temporary, name); err != nil {
		return errors.Join(fmt.Errorf("put the new file in place: %w", err), dir.Remove(temporary))
	}
	if err := dir.Sync(path.Dir(name)); err != nil {
		return fmt.Errorf("make the new name durable: %w", err)
	}
	return nil
}

// writeNew makes a synced file of data, or none.
func writeNew(dir Dir, name string, data []byte) error {
	file, err := dir.Create(name)
	if err != nil {
		return fmt.Errorf("write beside: %w", err)
	}
	_, err = file.WriteAt(data, 0)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(fmt.Errorf("write beside: %w", err), dir.Remove(name))
	}
	return nil
}
