package qcow2_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
)

// checkImageCrash holds a state against what was promised before it.
func checkImageCrash(crash *durabletest.Crash) error {
	p := imagePromisesOf(crash)
	file, err := crash.Dir().Open("image", durable.ReadOnly)
	if err != nil {
		return p.unlessNew(err)
	}
	i, err := qcow2.OpenImage(file, durable.ReadOnly)
	if err != nil {
		return p.unlessNew(err)
	}
	for finding, err := range qcow2.Check(file) {
		if err != nil {
			return err
		}
		if finding.Severity != disk.Leaked {
			return fmt.Errorf("Check: %s", finding.Message)
		}
	}
	return p.check(i)
}

// imagePromises is what a state must and may hold.
type imagePromises struct {
	there   bool
	flushed []uint64
	may     map[int64][]uint64
}

func imagePromisesOf(crash *durabletest.Crash) *imagePromises {
	p := &imagePromises{may: make(map[int64][]uint64)}
	for _, mark := range crash.Marks() {
		switch mark := mark.(type) {
		case imageThere:
			p.there = true
		case imageFlushed:
			p.flushed = mark
			clear(p.may)
		case imageChange:
			for n, stamp := range mark.stamps {
				p.may[mark.first+int64(n)] = append(p.may[mark.first+int64(n)], stamp)
			}
		}
	}
	return p
}

func (p *imagePromises) unlessNew(err error) error {
	if !p.there {
		return nil
	}
	return err
}

func (p *imagePromises) check(i *qcow2.Image) error {
	got := make([]byte, i.Size())
	if _, err := i.ReadAt(got, 0); err != nil {
		return err
	}
	for at := int64(0); at < i.Size()/sector; at++ {
		part := got[at*sector:][:sector]
		stamp := binary.BigEndian.Uint64(part)
		want := uint64(0)
		if p.flushed != nil {
			want = p.flushed[at]
		}
		if !carries(part, stamp) || stamp != want && !slices.Contains(p.may[at], stamp) {
			return fmt.Errorf("sector %d holds %x, flushed %d, then %d", at, part[:16], want, p.may[at])
		}
	}
	return nil
}

// goOnWithImage writes into what a crash left: that holds too, and nothing else changes.
func goOnWithImage(t *testing.T, crash *durabletest.Crash) error {
	p := imagePromisesOf(crash)
	if !p.there {
		return nil
	}
	file, err := crash.Dir().Open("image", durable.ReadWrite)
	if err != nil {
		return err
	}
	i, err := qcow2.OpenImage(file, durable.ReadWrite)
	if err != nil {
		return err
	}
	r, s := rand.New(rand.NewPCG(uint64(crash.Position()), 4)), newSectors(i.Size())
	s.last = 1 << 40
	for range 6 {
		first, count := s.pick(r)
		what := r.IntN(3)
		s.set(t, i, what, first, min(count, 50))
		for at := first; at < first+min(count, 50); at++ {
			p.may[at] = []uint64{s.stamps[at]}
			if p.flushed != nil {
				p.flushed = slices.Clone(p.flushed)
				p.flushed[at] = s.stamps[at]
			}
		}
	}
	if err := i.Flush(); err != nil {
		return err
	}
	for finding, err := range qcow2.Check(file) {
		if err != nil || finding.Severity != disk.Leaked {
			return fmt.Errorf("Check after going on: %v, %s", err, finding.Message)
		}
	}
	again, err := qcow2.OpenImage(file, durable.ReadOnly)
	if err != nil {
		return err
	}
	return p.check(again)
}

// askQEMUAboutCrash has QEMU check the state, and read the same from it.
func askQEMUAboutCrash(t *testing.T, crash *durabletest.Crash) error {
	p := imagePromisesOf(crash)
	if !p.there {
		return nil
	}
	file, err := crash.Dir().Open("image", durable.ReadOnly)
	if err != nil {
		return err
	}
	directory := memoryDir(t)
	path := filepath.Join(directory, "image")
	if err := disktest.Export(path, file); err != nil {
		return err
	}
	errs, leaks := checkWithQEMU(t, path)
	if errs > 0 {
		return fmt.Errorf("qemu-img check finds %d errors", errs)
	}
	ours := 0
	for _, err := range qcow2.Check(file) {
		if err != nil {
			return err
		}
		ours++
	}
	if (ours > 0) != (leaks > 0) {
		return fmt.Errorf("qemu-img check finds %d leaks, Check %d", leaks, ours)
	}
	i, err := qcow2.OpenImage(file, durable.ReadOnly)
	if err != nil {
		return err
	}
	content, err := io.ReadAll(io.NewSectionReader(i, 0, i.Size()))
	if err != nil {
		return err
	}
	f := &foreign{fixture: fixture{directory: directory}, path: path, bytes: content}
	f.equal(t)
	return os.RemoveAll(directory)
}
