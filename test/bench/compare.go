package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
)

// compare fails when two images differ in any byte.
func compare(ctx context.Context, one, other string) error {
	if _, err := output(ctx, "cmp", one, other); err != nil {
		return fmt.Errorf("the images differ: %w", err)
	}
	return nil
}

// compareData does the same for images of which almost everything is a hole, which cmp would read: it reads what is
// data in either.
func compareData(one, other string) error {
	var files [2]*os.File
	var extents []extent
	var sizes [2]int64
	for i, path := range []string{one, other} {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return err
		}
		found, err := dataExtents(file)
		if err != nil {
			return err
		}
		files[i], sizes[i], extents = file, info.Size(), append(extents, found...)
	}
	if sizes[0] != sizes[1] {
		return fmt.Errorf("the images differ: %s has %d bytes, %s %d", one, sizes[0], other, sizes[1])
	}
	slices.SortFunc(extents, func(x, y extent) int { return int(min(max(x.start-y.start, -1), 1)) })
	var pieces [2][]byte
	pieces[0], pieces[1] = make([]byte, mib), make([]byte, mib)
	compared := int64(0)
	for _, e := range extents {
		for off := max(e.start, compared); off < e.end; off += mib {
			n := min(mib, e.end-off)
			for i, file := range files {
				if _, err := file.ReadAt(pieces[i][:n], off); err != nil {
					return err
				}
			}
			if !bytes.Equal(pieces[0][:n], pieces[1][:n]) {
				return fmt.Errorf("the images differ: %s and %s, within 1 MiB from byte %d", one, other, off)
			}
		}
		compared = max(compared, e.end)
	}
	return nil
}
