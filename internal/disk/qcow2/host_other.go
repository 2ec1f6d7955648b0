//go:build !linux

package qcow2

import "vmreplica/internal/durable"

func allocatedBytes(durable.File) (int64, bool) { return 0, false }
