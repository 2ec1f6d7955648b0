package chain

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/stack"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// Reader is who reads a point, and which.
type Reader struct {
	// Point is what is read; with Newest it was the newest content when the reading began.
	Point  Point
	Newest bool
	// Who is shown to operators: a clause like "an export for operator alice".
	Who   string
	Since time.Time
}

// Pin is a point that is read: until Release its disks' content stays what it was, whatever is committed, merged and
// deleted meanwhile. Its VM is acquired.
type Pin struct {
	Reader
	// Record is as it was when the reading began.
	Record  Record
	vm      *VM
	release func() error
	disks   map[string]*pinnedDisk
}

// pinnedDisk is a disk up to the boundary that is read.
type pinnedDisk struct {
	disk.Reader
	view   *View
	layers []*layer
	// files are the layers that are read and still in the table; guarded by the mu of pins.
	files []string
}

// Disk reads one disk of the point. NOT_FOUND.
func (p *Pin) Disk(id string) (disk.Reader, error) {
	if found := p.disks[id]; found != nil {
		return found, nil
	}
	return nil, failure.New(failure.NotFound, failure.ReasonNotFound, "the replica has no such disk").On(p.vm.name, id)
}

// Release ends the reading. Nobody reads any more. What had to wait is merged from here. Repeating it does nothing.
func (p *Pin) Release() error { return p.release() }

// Pin reads the point that FindPoint finds for text; who is told to those who wait for its end.
func (v *VM) Pin(text, who string) (*Pin, error) {
	if err := v.Acquire(); err != nil {
		return nil, err
	}
	p, err := v.pin(text, who)
	if err != nil {
		return nil, errors.Join(err, v.Release())
	}
	p.release = sync.OnceValue(func() error { return v.unpin(p) })
	return p, nil
}

// pin takes the layers below the boundary under turn, so that no merge begins to cross it meanwhile. A merge that is
// under way does not: its layer stands on no point, and is below the newest content's boundary.
func (v *VM) pin(text, who string) (*Pin, error) {
	v.turn.Lock()
	defer v.turn.Unlock()
	record, err := v.Record()
	if err != nil {
		return nil, err
	}
	point, newest, err := record.FindPoint(text)
	if err != nil {
		return nil, err
	}
	p := &Pin{
		Reader: Reader{Point: point, Newest: newest, Who: who, Since: time.Now().UTC()},
		Record: record, vm: v, disks: map[string]*pinnedDisk{},
	}
	for i := range record.Disks {
		d := &record.Disks[i]
		boundary := len(d.without(Receiving))
		if !newest {
			boundary = d.standing(point.ID)
		}
		p.disks[d.ID] = v.disks[d.ID].pin(boundary)
	}
	v.pins.add(p)
	return p, nil
}

// pin keeps the lowest layers open, and reads through them.
func (o *Open) pin(layers int) *pinnedDisk {
	pinned := &pinnedDisk{view: o.view, layers: o.view.pinLowest(layers), files: slices.Clone(o.files[:layers])}
	readers := make([]disk.Reader, layers)
	for i, l := range pinned.layers {
		readers[i] = l.Layer
	}
	pinned.Reader = stack.New(o.base, readers...)
	return pinned
}

func (v *VM) unpin(p *Pin) error {
	v.pins.remove(p)
	var errs []error
	for _, d := range p.disks {
		errs = append(errs, d.view.unpin(d.layers))
	}
	errs = append(errs, v.Release())
	v.table.notify(v.name)
	return errors.Join(errs...)
}

// Readers are those who read points of the VM at this moment, in the order of their beginning.
func (v *VM) Readers() []Reader { return v.pins.list(func(*Pin) bool { return true }) }

// read is why something cannot be done while these read.
func (v *VM) read(readers []Reader) error {
	var who []string
	for _, r := range readers {
		who = append(who, r.Who+" since "+r.Since.Format(time.RFC3339))
	}
	return failure.New(failure.Conflict, failure.ReasonWrongState, "its disks are being read: %s", strings.Join(who, "; ")).
		On(v.name, "").Try("End these readers, or wait for them.")
}

// pins are the points of a VM that are read. They are added under the VM's turn.
type pins struct {
	mu  sync.Mutex
	all []*Pin
}

func (s *pins) add(p *Pin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, p)
}

func (s *pins) remove(p *Pin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc(slices.Clone(s.all), func(one *Pin) bool { return one == p })
}

// forget says that a layer was merged within what is read, and that its name may be used anew.
func (s *pins) forget(diskID, file string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.all {
		if d := p.disks[diskID]; d != nil {
			d.files = slices.DeleteFunc(d.files, func(f string) bool { return f == file })
		}
	}
}

// crossed says whether the merge of the layer at index i would change what somebody reads: it is not read, and what lies
// below it is.
func (s *pins) crossed(d *Disk, i int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.all, func(p *Pin) bool {
		read := p.disks[d.ID]
		return read != nil && !slices.Contains(read.files, d.Layers[i].File) &&
			(i == 0 || slices.Contains(read.files, d.Layers[i-1].File))
	})
}

// of are those who read a point that is kept.
func (s *pins) of(point replication.ID) []Reader {
	return s.list(func(p *Pin) bool { return !p.Newest && p.Point.ID == point })
}

func (s *pins) list(wanted func(*Pin) bool) []Reader {
	s.mu.Lock()
	defer s.mu.Unlock()
	var readers []Reader
	for _, p := range s.all {
		if wanted(p) {
			readers = append(readers, p.Reader)
		}
	}
	return readers
}
