package vhd_test

import (
	"maps"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/vhd"
	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
)

// What a crash's marks say. A map holds stamps by grain, 0 for zeros.
type (
	created struct{}
	// naming is what is about to be written: what holds it holds the stamps too.
	naming struct {
		named
		stamps flushed
	}
	// flushed is what a Flush promised, change what may be there from here on.
	flushed map[int64]uint64
	change  struct {
		grain int64
		stamp uint64
	}
	// named is the parent and the identity that were written.
	named struct {
		parent   string
		identity disk.Identity
	}
)

// image is what the scenarios drive: a base or a differencing disk.
type image interface {
	disk.Disk
	disk.Identified
}

// scenario is a history whose every operation is recorded.
type scenario struct {
	*durabletest.Recorder
	options      vhd.Options
	differencing bool
	image        image
	stamps       map[int64]uint64
	last         uint64
	name         named
}

func start(t *testing.T, r *durabletest.Recorder, differencing bool, options vhd.Options) *scenario {
	t.Helper()
	s := &scenario{Recorder: r, options: options, differencing: differencing, stamps: make(map[int64]uint64)}
	file, err := s.Dir().Create("disk")
	must(t, err)
	if differencing {
		s.image, err = vhd.CreateDifferencing(file, options)
	} else {
		s.image, err = vhd.Create(file, options)
	}
	must(t, err)
	must(t, s.Dir().Sync("."))
	s.Mark(created{})
	s.name.identity = s.image.Identity()
	s.Mark(s.name)
	return s
}

func openCrashed(dir durable.Dir, differencing bool, mode durable.Mode) (image, error) {
	file, err := dir.Open("disk", mode)
	if err != nil {
		return nil, err
	}
	if differencing {
		return opened(vhd.OpenDifferencing(file, mode))
	}
	return opened(vhd.Open(file, mode))
}

// opened keeps a nil pointer from becoming an image.
func opened[I image](i I, err error) (image, error) {
	if err != nil {
		return nil, err
	}
	return i, nil
}

func (s *scenario) reopen(t *testing.T) {
	t.Helper()
	must(t, s.image.Close())
	var err error
	s.image, err = openCrashed(s.Dir(), s.differencing, durable.ReadWrite)
	must(t, err)
}

func (s *scenario) write(t *testing.T, first, count int64) {
	t.Helper()
	for g := first; g < first+count; g++ {
		s.last++
		s.Mark(change{g, s.last})
		s.stamps[g] = s.last
		_, err := s.image.WriteAt(content(s.last)[:min(grain, s.image.Size()-g*grain)], g*grain)
		must(t, err)
	}
}

func (s *scenario) unmap(t *testing.T, first, count int64) {
	t.Helper()
	for g := first; g < first+count; g++ {
		s.Mark(change{g, 0})
		s.stamps[g] = 0
	}
	must(t, s.image.Unmap(first*grain, min(count*grain, s.image.Size()-first*grain)))
}

func (s *scenario) flush(t *testing.T) {
	t.Helper()
	must(t, s.image.Flush())
	s.Mark(flushed(maps.Clone(s.stamps)))
}

func (s *scenario) seal(t *testing.T, parent string) {
	t.Helper()
	s.name.parent = parent
	s.Mark(naming{s.name, maps.Clone(s.stamps)})
	must(t, s.image.(*vhd.Layer).Seal(disk.Parent{Name: parent, Path: "/images/" + parent, Format: "vhd",
		Identity: disk.Identity{byte(len(parent))}}))
	s.Mark(flushed(maps.Clone(s.stamps)))
	s.Mark(s.name)
}

func (s *scenario) identify(t *testing.T, id disk.Identity) {
	t.Helper()
	s.name.identity = id
	s.Mark(naming{s.name, maps.Clone(s.stamps)})
	must(t, s.image.SetIdentity(id))
	s.Mark(flushed(maps.Clone(s.stamps)))
	s.Mark(s.name)
}

// play changes the disk, flushes, opens it again, and gives it another identity and, if it can have one, parents.
func (s *scenario) play(t *testing.T) {
	t.Helper()
	s.write(t, 0, 2)
	s.write(t, 150, 1)
	s.flush(t)
	s.write(t, 1, 2)
	s.unmap(t, 0, 1)
	s.unmap(t, 300, 2)
	s.write(t, 301, 1)
	s.flush(t)
	if s.differencing {
		s.write(t, 9, 1)
		s.seal(t, "base.vhd")
	}
	s.identify(t, disk.Identity{7, 7})
	s.reopen(t)
	s.write(t, 3, 1)
	s.write(t, 410, 1)
	s.flush(t)
	if s.differencing {
		s.seal(t, "another base.vhd")
		s.seal(t, "a third.vhd")
	}
	s.write(t, 520, 1)
	must(t, s.image.Close())
	s.Mark(flushed(maps.Clone(s.stamps)))
}

// crashed are the kinds of disk that the crash tests drive: 2200 KiB and a sector.
var crashed = map[string]struct {
	differencing bool
	options      vhd.Options
}{
	"fixed":               {false, vhd.Options{SizeBytes: 2200<<10 + 512, Fixed: true}},
	"dynamic":             {false, vhd.Options{SizeBytes: 2200<<10 + 512, BlockBytes: 512 << 10}},
	"differencing":        {true, vhd.Options{SizeBytes: 2200<<10 + 512, BlockBytes: 512 << 10}},
	"differencing, 2 MiB": {true, vhd.Options{SizeBytes: 2200<<10 + 512}},
}

// short is a history in which every sync has something to lose.
func (s *scenario) short(t *testing.T) {
	t.Helper()
	s.write(t, 0, 2)
	s.write(t, 150, 1)
	s.flush(t)
	s.write(t, 9, 1)
	s.write(t, 420, 1)
	s.flush(t)
	s.write(t, 20, 1)
	if s.differencing {
		s.seal(t, "base.vhd")
		s.seal(t, "another base.vhd")
	}
	s.identify(t, disk.Identity{7, 7})
}
