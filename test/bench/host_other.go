//go:build !linux

package main

import (
	"errors"
	"fmt"
	"os"
)

var errLinux = fmt.Errorf("the bench needs Linux: %w", errors.ErrUnsupported)

// extent is a range of a file that may hold data.
type extent struct{ start, end int64 }

func dataExtents(*os.File) ([]extent, error) { return nil, errLinux }

func freeSpace(string) (int64, error) { return 0, errLinux }

func evict(string) error { return errLinux }

func cached(string) (int64, error) { return 0, errLinux }
