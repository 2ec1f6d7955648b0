package qcow2_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"vmreplica/internal/durable"
)

// structure is what `qemu-img check` does, written from the format's specification and sharing nothing with the
// package: every cluster that a table names lies in the file, is named once, and has the refcount 1.
type structure struct {
	file  durable.File
	size  int64
	named map[int64]string
	err   error
}

// checkStructure answers the first fault that is more than a leak.
func checkStructure(file durable.File) error {
	size, err := file.Size()
	if err != nil {
		return err
	}
	s := &structure{file: file, size: size, named: make(map[int64]string)}
	header := s.read(0, 112)
	word := func(at int) int64 { return int64(binary.BigEndian.Uint64(header[at:])) }
	tables, l1 := int64(binary.BigEndian.Uint32(header[36:])), word(40)
	counts, countsLength := word(48), int64(binary.BigEndian.Uint32(header[56:]))*cluster
	s.name("header", 0, 1)
	s.name("L1 table", l1, tables*8)
	s.name("refcount table", counts, countsLength)
	blocks := s.words(counts, countsLength/8)
	for _, block := range blocks {
		s.name("refcount block", block, cluster)
	}
	for _, table := range s.words(l1, tables) {
		s.walk(table &^ (-1 << 63))
	}
	for at, what := range s.named {
		block := blocks[at/65536]
		if block == 0 || binary.BigEndian.Uint16(s.read(block+at%65536*2, 2)) != 1 {
			s.fault("the %s at cluster %d has not the refcount 1", what, at)
		}
	}
	return s.err
}

func (s *structure) walk(table int64) {
	s.name("L2 table", table, cluster)
	if table == 0 || s.err != nil {
		return
	}
	entries := s.words(table, cluster/8)
	for i := 0; i < len(entries); i += 2 {
		descriptor, subs := uint64(entries[i]), uint64(entries[i+1])
		host := descriptor &^ (1 << 63)
		switch {
		case subs&(subs>>32)&0xffffffff != 0:
			s.fault("entry %d of the L2 table at %d has data and zeros at once", i/2, table)
		case host == 0 && uint32(subs) != 0 || host != 0 && descriptor == host:
			s.fault("entry %d of the L2 table at %d is %#x %#x", i/2, table, descriptor, subs)
		}
		s.name("data", int64(host), cluster)
	}
}

// name notes the clusters of [at, at+n); at 0 but for the header there is none.
func (s *structure) name(what string, at, n int64) {
	if at == 0 && what != "header" {
		return
	}
	if at%cluster != 0 || at+n > (s.size+cluster-1)/cluster*cluster {
		s.fault("the %s at %d lies outside the file of %d bytes", what, at, s.size)
		return
	}
	for c := at / cluster; c*cluster < at+n; c++ {
		if other, taken := s.named[c]; taken {
			s.fault("cluster %d is %s and %s", c, other, what)
		}
		s.named[c] = what
	}
}

func (s *structure) words(at, n int64) []int64 {
	raw := s.read(at, n*8)
	words := make([]int64, n)
	for i := range words {
		words[i] = int64(binary.BigEndian.Uint64(raw[i*8:]))
	}
	return words
}

func (s *structure) read(at, n int64) []byte {
	p := make([]byte, n)
	if _, err := s.file.ReadAt(p, at); err != nil && !errors.Is(err, io.EOF) {
		s.fault("read %d: %w", at, err)
	}
	return p
}

func (s *structure) fault(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf(format, args...)
	}
}
