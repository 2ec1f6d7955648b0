package relationship

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"vmreplica/agent-primary/tracking"
	"vmreplica/internal/disk"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/hrl"
	"vmreplica/internal/nbd"
	"vmreplica/internal/replication"
)

// machine is a VM's disks as they are tracked, open while somebody uses them: the VM through its connections, a worker
// that ships or compares. All disks of the VM are open or none.
type machine struct {
	owner *owner
	// now is what is open, for those who only look; nil while nothing is.
	now atomic.Pointer[opened]

	// mu is held while the disks are opened and closed.
	mu    sync.Mutex
	users int
	// closing closes the disks when nobody has come back; guarded by mu.
	closing *time.Timer
}

// opened are the open disks of a VM, in the record's order.
type opened struct {
	group   *tracking.Group
	disks   []*tracking.Disk
	exports []*attachment
}

// attachment is one disk as the machine attaches it.
type attachment struct {
	nbd.Export
	machine *machine
	id      string
	// connections to it at this moment.
	connections atomic.Int64
}

// isOpen says whether the disks are open.
func (m *machine) isOpen() bool { return m.now.Load() != nil }

// attached says whether the machine has a connection to a disk.
func (m *machine) attached() bool {
	now := m.now.Load()
	if now == nil {
		return false
	}
	for _, export := range now.exports {
		if export.connections.Load() > 0 {
			return true
		}
	}
	return false
}

// figures are what has accumulated; false while the disks are closed.
func (m *machine) figures() (tracking.Figures, bool) {
	if now := m.now.Load(); now != nil {
		return now.group.Figures(), true
	}
	return tracking.Figures{}, false
}

// losses are the disks whose log is not exact, in the record's order; nil while the disks are closed.
func (m *machine) losses() []hrl.Loss {
	now := m.now.Load()
	if now == nil {
		return nil
	}
	losses := make([]hrl.Loss, len(now.disks))
	for i, disk := range now.disks {
		losses[i] = disk.Loss()
	}
	return losses
}

// acquire opens the disks, or finds them open. Each success is answered by one release.
func (m *machine) acquire(ctx context.Context) (o *opened, release func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closing != nil {
		m.closing.Stop()
		m.closing = nil
	}
	o = m.now.Load()
	if o == nil {
		if o, err = m.open(ctx); err != nil {
			return nil, nil, failure.Locate(err, m.owner.record().Name, "")
		}
		m.now.Store(o)
	}
	m.users++
	return o, sync.OnceFunc(m.release), nil
}

// release ends a use. After the last one the disks stay open for a while: a machine that reconnects is not kept waiting.
func (m *machine) release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.users--; m.users > 0 || !m.isOpen() {
		return
	}
	m.closing = time.AfterFunc(m.owner.config.DetachGrace, m.closeUnused)
}

// closeUnused closes the disks that nobody uses any more. The owner is told when they are: it may be waiting to close them
// itself.
func (m *machine) closeUnused() {
	m.mu.Lock()
	if m.users > 0 || !m.isOpen() {
		m.mu.Unlock()
		return
	}
	closed := m.close()
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), lossPatience)
	defer cancel()
	if _, _, err := m.owner.apply(ctx, closed); err != nil {
		m.owner.log.Warn("that the disks are closed was not saved; their logs know it", "error", err)
	}
}

// close closes the disks and answers the change of the record that says so. The caller holds mu.
func (m *machine) close() change {
	open := m.now.Swap(nil)
	pending := open.group.Figures().Accumulated()
	found := make([]closing, len(open.disks))
	record := m.owner.record()
	for i, d := range open.disks {
		found[i].opened = d.Opened()
		if err := d.Close(); err != nil {
			m.owner.log.Error("a disk was not closed in order", "disk", d.ID(), "error", err)
			continue
		}
		stamp, err := m.owner.config.Images.Stamp(record.Spec.Disks[i])
		if err != nil {
			m.owner.log.Error("a closed disk was not looked at", "disk", d.ID(), "error", err)
			continue
		}
		found[i].stamp = stamp
	}
	return change{transition: func(r Record) (Record, []event.Event, error) { return r.closed(found, pending) }}
}

// shut closes the disks at the end of their owner, whose goroutine calls it. Nobody uses them any more.
func (m *machine) shut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closing != nil {
		m.closing.Stop()
		m.closing = nil
	}
	if !m.isOpen() {
		return
	}
	closed := m.close()
	if m.owner.erased {
		return
	}
	if a := m.owner.handle(closed); a.err != nil {
		m.owner.log.Warn("that the disks are closed was not saved; their logs know it", "error", a.err)
	}
}

// open opens every disk with its log, or none. The caller holds mu. A disk that is served is in the record before.
func (m *machine) open(ctx context.Context) (*opened, error) {
	record, _, err := m.owner.apply(ctx, change{transition: Record.withLogs})
	if err != nil {
		return nil, err
	}
	o := &opened{}
	var found []opening
	discard := func(err error) (*opened, error) {
		for _, d := range o.disks {
			err = errors.Join(err, d.Close())
		}
		return nil, err
	}
	for i := range record.Disks {
		d, stamp, err := m.openDisk(record, i)
		if err != nil {
			return discard(failure.Locate(err, record.Name, record.Disks[i].ID))
		}
		o.disks = append(o.disks, d)
		found = append(found, opening{
			stamp: stamp, opened: d.Opened(), loss: d.Loss(), first: record.Disks[i].Log.Opened == 0,
		})
	}
	o.group = tracking.NewGroup(o.disks, m.owner.config.CopyBeforeWrite)
	for _, d := range o.disks {
		o.exports = append(o.exports, &attachment{Export: d.Export(), machine: m, id: d.ID()})
	}
	baseline := replication.NewID()
	record, _, err = m.owner.apply(ctx, change{transition: func(r Record) (Record, []event.Event, error) {
		return r.openedWith(now(), found, baseline)
	}})
	if err != nil {
		return discard(err)
	}
	if err := errors.Join(o.begin(ctx, record, found), o.follow(record)); err != nil {
		return discard(err)
	}
	return o, nil
}

// begin makes those logs exact whose disks are known to be unchanged since a baseline, before anybody writes.
func (o *opened) begin(ctx context.Context, record Record, found []opening) error {
	fresh := map[replication.ID][]*tracking.Disk{}
	for i := range o.disks {
		if baseline := record.beginAt(i, found[i]); baseline != "" {
			fresh[baseline] = append(fresh[baseline], o.disks[i])
		}
	}
	for baseline, disks := range fresh {
		if _, err := o.group.Begin(ctx, baseline, disks...); err != nil {
			return err
		}
	}
	return nil
}

func (m *machine) openDisk(record Record, index int) (*tracking.Disk, disk.Stamp, error) {
	spec, known := record.Spec.Disks[index], record.Disks[index]
	image, err := m.owner.config.Images.OpenLive(spec)
	if err != nil {
		return nil, disk.Stamp{}, err
	}
	stamp, err := image.Stamp()
	if err == nil && image.Size() != known.SizeBytes {
		err = failure.New(failure.Precondition, failure.ReasonSizeMismatch, "the image has %d bytes, and had %d when it was enabled",
			image.Size(), known.SizeBytes).Try("Remove the replication and enable the virtual machine again with its new size.")
	}
	if err != nil {
		return nil, stamp, errors.Join(err, image.Close())
	}
	d, err := tracking.OpenLive(tracking.LiveOptions{
		ID: spec.ID, Image: image, Logs: m.owner.config.Logs, Log: LogName(record.Name, spec.ID), Known: record.knownLog(index),
		Lost: func(loss hrl.Loss) error { return m.lost(index, loss) },
	})
	return d, stamp, err
}

// lossPatience bounds how long a guest's write waits until a loss is in the record: the log itself records it too.
const lossPatience = 5 * time.Second

// lost records that a disk's log is not exact any more. What is lost before the disk is served is found when it is
// opened.
func (m *machine) lost(index int, loss hrl.Loss) error {
	if !m.isOpen() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), lossPatience)
	defer cancel()
	_, _, err := m.owner.apply(ctx, change{transition: func(r Record) (Record, []event.Event, error) {
		return r.trackingLost(now(), index, loss)
	}})
	return err
}

// LogName is the name of a disk's log in the agent's directory of logs.
func LogName(vm, disk string) string { return vm + "@" + disk + ".hrl" }
