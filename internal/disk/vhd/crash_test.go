package vhd_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
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

// TestCrashes loses power after every operation, with every choice of what was not synced. Each state opens, holds
// what was flushed and nothing that was never written there, and can be gone on with.
func TestCrashes(t *testing.T) {
	for name, c := range crashed {
		t.Run(name, func(t *testing.T) {
			s := start(t, durabletest.New(), c.differencing, c.options)
			s.play(t)
			states := 0
			for crash := range s.Crashes(durabletest.Options{Singles: 12, Random: 4}) {
				err := checkCrash(crash, c.differencing)
				if err == nil && states%17 == 0 {
					err = goOn(crash, c.differencing)
				}
				if err == nil && states%101 == 0 {
					err = askOracle(t, crash, c.differencing)
				}
				if err != nil {
					t.Fatalf("%v\n%v", crash, err)
				}
				states++
			}
			t.Logf("%d states", states)
		})
	}
}

// sparedSyncs are those that short can do without. The first, while the file grows, is what TestNoFooterIsForged needs.
// The others are SetIdentity's: of nothing, and of the footers, one of which would do for this package alone.
var sparedSyncs = map[string][]int{
	"fixed":               {},
	"dynamic":             {3, 9, 10},
	"differencing":        {3, 13, 14, 15},
	"differencing, 2 MiB": {3, 13, 14, 15},
}

// TestSyncsAreNeeded leaves out one sync after the other, and each time there is a crash that breaks a promise.
func TestSyncsAreNeeded(t *testing.T) {
	for name, c := range crashed {
		t.Run(name, func(t *testing.T) {
			spared := []int{}
			for lost, done := 1, false; !done; lost++ {
				r := durabletest.New()
				done = !dropSync(r, lost, func() { start(t, r, c.differencing, c.options).short(t) })
				if !done && !anyCrashFails(r, c.differencing) {
					spared = append(spared, lost)
				}
			}
			if !slices.Equal(spared, sparedSyncs[name]) {
				t.Errorf("syncs %v can be left out", spared)
			}
		})
	}
}

// dropSync leaves out the n-th sync of a file while play runs, and says whether there was one.
func dropSync(r *durabletest.Recorder, n int, play func()) bool {
	seen := 0
	r.Drop(func(op durabletest.Op) bool {
		if op.Kind == durabletest.Sync {
			seen++
		}
		return op.Kind == durabletest.Sync && seen == n
	})
	play()
	return seen >= n
}

// TestNoFooterIsForged lets a guest fill its disk with footers of a fixed disk. Whatever a crash leaves, the file is
// taken for what it is; without the sync of the file's growth it is not.
func TestNoFooterIsForged(t *testing.T) {
	forged := func(r *durabletest.Recorder) bool {
		for crash := range r.Crashes(durabletest.Options{}) {
			file, err := crash.Dir().Open("disk", durable.ReadOnly)
			if err != nil || len(crash.Marks()) == 0 {
				continue
			}
			if info, err := vhd.Describe(file); err != nil || info.Kind != "dynamic" {
				return true
			}
		}
		return false
	}
	const none, ofGrowth = 0, 3
	r := durabletest.New()
	dropSync(r, none, func() { forge(t, r) })
	if forged(r) {
		t.Error("a guest's data passes for the footer")
	}
	r = durabletest.New()
	dropSync(r, ofGrowth, func() { forge(t, r) })
	if !forged(r) {
		t.Error("the test forges nothing")
	}
}

// forge writes what a fixed disk of one sector ends in.
func forge(t *testing.T, r *durabletest.Recorder) {
	t.Helper()
	path := filepath.Join(memoryDir(t), "small")
	small, err := vhd.Create(newFile(t, path), vhd.Options{SizeBytes: 512, Fixed: true})
	must(t, err)
	must(t, small.Close())
	file, err := os.ReadFile(path)
	must(t, err)
	s := start(t, r, false, vhd.Options{SizeBytes: 4 << 20, BlockBytes: 512 << 10})
	for _, block := range []int64{0, 3, 7} {
		_, err := s.image.WriteAt(bytes.Repeat(file[512:], 1024), block*(512<<10))
		must(t, err)
	}
	must(t, s.image.Flush())
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

func anyCrashFails(r *durabletest.Recorder, differencing bool) bool {
	for crash := range r.Crashes(durabletest.Options{}) {
		if checkCrash(crash, differencing) != nil {
			return true
		}
	}
	return false
}

// promises is what a state must and may hold.
type promises struct {
	created bool
	// differencing: what was not written is absent, and not zeros.
	differencing bool
	flushed      flushed
	may          map[int64][]uint64
	// names are what it may be, naming the last of them while it was not yet promised.
	names  []named
	naming naming
}

func promisesOf(crash *durabletest.Crash, differencing bool) *promises {
	p := &promises{differencing: differencing, may: make(map[int64][]uint64)}
	for _, mark := range crash.Marks() {
		switch mark := mark.(type) {
		case created:
			p.created = true
		case flushed:
			p.flushed = mark
			clear(p.may)
		case change:
			p.may[mark.grain] = append(p.may[mark.grain], mark.stamp)
		case naming:
			p.names, p.naming = append(p.names, mark.named), mark
		case named:
			p.names, p.naming = []named{mark}, naming{}
		}
	}
	return p
}

// checkCrash holds a state against what was promised before it.
func checkCrash(crash *durabletest.Crash, differencing bool) error {
	p := promisesOf(crash, differencing)
	i, err := openCrashed(crash.Dir(), differencing, durable.ReadOnly)
	if err != nil {
		if p.created {
			return err
		}
		return nil
	}
	if err := p.checkName(i); err != nil {
		return err
	}
	if err := checkFile(crash); err != nil {
		return err
	}
	return p.check(i)
}

// checkName asks for the identity and the parent that were promised last, or that were under way.
func (p *promises) checkName(i image) error {
	if !p.created {
		return nil
	}
	found := named{identity: i.Identity()}
	if layer, ok := i.(*vhd.Layer); ok {
		parent := layer.Parent()
		found.parent = parent.Name
		if parent != (disk.Parent{}) && (parent.Path != "/images/"+parent.Name ||
			parent.Identity != disk.Identity{byte(len(parent.Name))}) {
			return fmt.Errorf("the parent is a mixture: %+v", parent)
		}
	}
	if !slices.Contains(p.names, found) {
		return fmt.Errorf("it is %+v, of %+v", found, p.names)
	}
	if found == p.naming.named {
		p.flushed = p.naming.stamps
	}
	return nil
}

// checkFile asks that Check finds leaks and what Open mends, but no block out of place.
func checkFile(crash *durabletest.Crash) error {
	file, err := crash.Dir().Open("disk", durable.ReadWrite)
	if err != nil {
		return err
	}
	i, err := reopenAny(file)
	if err != nil {
		return err
	}
	for finding, err := range vhd.Check(file) {
		if err != nil || finding.Severity != disk.Leaked {
			return fmt.Errorf("after mending: %s %v", finding.Message, err)
		}
	}
	return i.Close()
}

func reopenAny(file durable.File) (io.Closer, error) {
	info, err := vhd.Describe(file)
	if err != nil {
		return nil, err
	}
	if info.Kind == "differencing" {
		return vhd.OpenDifferencing(file, durable.ReadWrite)
	}
	return vhd.Open(file, durable.ReadWrite)
}

func (p *promises) check(i image) error {
	held := make(map[int64]bool)
	for e, err := range i.Extents(0, i.Size()) {
		if err != nil {
			return err
		}
		if e.Kind == disk.Absent {
			continue
		}
		got := make([]byte, e.Length)
		if _, err := i.ReadAt(got, e.Offset); err != nil {
			return err
		}
		for at := int64(0); at < e.Length; {
			g := (e.Offset + at) / grain
			n := min(grain-(e.Offset+at)%grain, e.Length-at)
			held[g] = true
			if err := p.checkContent(g, got[at:at+n]); err != nil {
				return err
			}
			at += n
		}
	}
	for g := range p.flushed {
		if !held[g] {
			return fmt.Errorf("grain %d was flushed and is absent", g)
		}
	}
	return nil
}

// checkContent asks each sector to be of the flushed stamp or of a later one.
func (p *promises) checkContent(g int64, got []byte) error {
	allowed := slices.Clone(p.may[g])
	if stamp, ok := p.flushed[g]; ok || !p.differencing {
		allowed = append(allowed, stamp)
	}
	for at := 0; at < len(got); at += 512 {
		stamp := binary.BigEndian.Uint64(got[at:])
		if !slices.Contains(allowed, stamp) {
			return fmt.Errorf("grain %d holds %#x, of %#x", g, stamp, allowed)
		}
	}
	return nil
}

// goOn opens the state for writing, writes on, and holds that too against what is promised.
func goOn(crash *durabletest.Crash, differencing bool) error {
	p := promisesOf(crash, differencing)
	i, err := openCrashed(crash.Dir(), differencing, durable.ReadWrite)
	if err != nil {
		if p.created {
			return err
		}
		return nil
	}
	r := rand.New(rand.NewPCG(uint64(crash.Position()), 4))
	stamps := make(map[int64]uint64)
	maps.Copy(stamps, p.flushed)
	for n := range uint64(6) {
		g, stamp := r.Int64N(i.Size()/grain), 1<<40+n
		crash.Mark(change{g, stamp})
		if _, err := i.WriteAt(content(stamp), g*grain); err != nil {
			return err
		}
		stamps[g] = stamp
		delete(p.may, g)
	}
	if err := errors.Join(i.Flush(), i.Close()); err != nil {
		return err
	}
	again, err := openCrashed(crash.Dir(), differencing, durable.ReadOnly)
	if err != nil {
		return err
	}
	p.flushed = stamps
	return p.check(again)
}

// askOracle lets another implementation read the state after Open mended it: 7zz, and its parent beside it when it is
// sealed.
func askOracle(t *testing.T, crash *durabletest.Crash, differencing bool) error {
	t.Helper()
	p := promisesOf(crash, differencing)
	i, err := openCrashed(crash.Dir(), differencing, durable.ReadWrite)
	if err != nil || !p.created {
		return nil
	}
	must(t, i.Close())
	directory := memoryDir(t)
	if layer, ok := i.(*vhd.Layer); ok {
		if layer.Parent() == (disk.Parent{}) {
			return nil
		}
		base, err := vhd.Create(newFile(t, filepath.Join(directory, layer.Parent().Name)),
			vhd.Options{SizeBytes: layer.Size()})
		must(t, err)
		must(t, base.SetIdentity(layer.Parent().Identity))
		must(t, base.Close())
	}
	file, err := crash.Dir().Open("disk", durable.ReadOnly)
	must(t, err)
	copySparse(t, filepath.Join(directory, "disk.vhd"), file)
	run(t, directory, "7zz", "e", "-y", "-tvhd", "-oout", "disk.vhd")
	got, err := os.ReadFile(filepath.Join(directory, "out", "disk.img"))
	must(t, err)
	for g := range p.flushed {
		if err := p.checkContent(g, got[g*grain:min((g+1)*grain, int64(len(got)))]); err != nil {
			return fmt.Errorf("as 7zz reads it: %w", err)
		}
	}
	return nil
}

func copySparse(t *testing.T, path string, from durable.File) {
	t.Helper()
	to, err := os.Create(path)
	must(t, err)
	defer to.Close()
	size, err := from.Size()
	must(t, err)
	must(t, to.Truncate(size))
	for at := int64(0); ; {
		begin, end, err := from.SeekData(at)
		if errors.Is(err, io.EOF) {
			return
		}
		must(t, err)
		_, err = io.Copy(io.NewOffsetWriter(to, begin), io.NewSectionReader(from, begin, end-begin))
		must(t, err)
		at = end
	}
}
