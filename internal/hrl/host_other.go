//go:build !linux

package hrl

import (
	"errors"
	"fmt"
	"unsafe"
)

// errHost says what is missing: a mapping that outlives the process and tells of a vanished file by a fault that can
// be caught, and a name for the host's present boot.
var errHost = fmt.Errorf("a replica log needs Linux: shared mappings and a boot id: %w", errors.ErrUnsupported)

func mapFile(uintptr, int64) ([]byte, error) { return nil, errHost }

func mapMemory(int64) ([]byte, error) { return nil, errHost }

func unmap([]byte) error { return errHost }

func bootID() (string, error) { return "", errHost }

func identify(uintptr) (fileID, error) { return fileID{}, errHost }

func wordsOf(mapped []byte) []uint64 {
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(mapped))), len(mapped)/8)
}

func bytesOf(words []uint64) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*8)
}
