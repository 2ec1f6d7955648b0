//go:build !linux

package vhd

import "vmreplica/internal/durable"

func allocatedBytes(durable.File) (int64, bool) { return 0, false }
