//go:build !linux

package main

import (
	"context"
	"errors"
)

func demonstrate(context.Context, string) error {
	return errors.New("the demo mounts disk images, which needs Linux")
}
