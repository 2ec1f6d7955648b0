package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// tree copies regular files until a limit is reached.
type tree struct {
	into         string
	limit, bytes int64
	files        int
}

// copy adds what lies below from. What cannot be read is left out: any few hundred megabytes will do.
func (t *tree) copy(ctx context.Context, from string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case t.bytes >= t.limit:
			return fs.SkipAll
		case err != nil && path != from:
			return nil
		case err != nil || !entry.Type().IsRegular():
			return nil
		}
		return t.add(path)
	})
}

func (t *tree) add(path string) error {
	source, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer source.Close()
	to := filepath.Join(t.into, path)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	n, err := io.Copy(target, source)
	t.bytes += n
	t.files++
	return errors.Join(err, target.Close())
}

// eachFile visits the regular files below root in their order, counted from 1.
func eachFile(ctx context.Context, root string, visit func(path string, n int) error) error {
	n := 0
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		n++
		return visit(path, n)
	})
}
