package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// corpusShare of an image is filled with files: 5 GB of 6 GiB.
const corpusShare = 0.776

// buildImage makes an ext4 image of the machine's own files: those of /usr and the Go modules, and when they do not
// suffice the same again with every byte changed, so that no content comes twice.
func buildImage(ctx context.Context, image string, size int64) error {
	staging := image + ".files"
	defer os.RemoveAll(staging)
	roots := []string{"/usr"}
	if modules, err := output(ctx, "go", "env", "GOMODCACHE"); err == nil {
		roots = append(roots, strings.TrimSpace(modules))
	}
	c := corpus{ctx: ctx, bytes: int64(float64(size) * corpusShare), files: size / (20 * kib)}
	for round := 0; c.bytes > mib && c.files > 0; round++ {
		before := c.bytes
		for i, root := range roots {
			if err := c.gather(root, filepath.Join(staging, strconv.Itoa(round), strconv.Itoa(i)), byte(round)); err != nil {
				return err
			}
		}
		if c.bytes == before {
			return fmt.Errorf("%v hold no files to make an image of", roots)
		}
	}
	if err := makeSparse(image, size); err != nil {
		return err
	}
	_, err := output(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", "-d", staging, image)
	return err
}

// corpus is what may still be gathered.
type corpus struct {
	ctx          context.Context
	bytes, files int64
}

// gather copies the regular files below root that fit, every byte of them changed by mask.
func (c *corpus) gather(root, into string, mask byte) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil // what cannot be read is no part of the corpus
		}
		if !entry.Type().IsRegular() {
			return c.ctx.Err()
		}
		if c.bytes <= mib || c.files == 0 {
			return fs.SkipAll
		}
		info, err := entry.Info()
		allocated := (info.Size() + 4*kib - 1) / (4 * kib) * (4 * kib)
		if err != nil || info.Size() == 0 || allocated > c.bytes {
			return nil
		}
		if err := copyMasked(path, filepath.Join(into, strings.TrimPrefix(path, root)), mask); err != nil {
			return err
		}
		c.bytes, c.files = c.bytes-allocated, c.files-1
		return c.ctx.Err()
	})
}

func copyMasked(from, to string, mask byte) error {
	in, err := os.Open(from)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	var reader io.Reader = in
	if mask != 0 {
		reader = masked{in, mask}
	}
	_, err = io.Copy(out, reader)
	return errors.Join(err, out.Close())
}

// masked changes every byte that is read.
type masked struct {
	io.Reader
	mask byte
}

func (m masked) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	for i := range p[:n] {
		p[i] ^= m.mask
	}
	return n, err
}

// makeSparse makes a file of one hole.
func makeSparse(path string, size int64) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(file.Truncate(size), file.Close())
}

// duplicate copies an image, its holes as holes, and waits for the disk.
func duplicate(ctx context.Context, from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	return every(ctx, []string{"cp", "--reflink=never", from, to}, []string{"sync", from, to})
}
