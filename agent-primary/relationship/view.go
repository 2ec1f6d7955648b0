package relationship

import (
	"slices"
	"time"

	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	"vmreplica/internal/state"
)

// View is a relationship as it is shown: what was saved, what is happening, and what both mean.
type View struct {
	Record
	Live
	State   replication.State
	Reasons []replication.HealthReason
}

// Health is the worst of the reasons.
func (v View) Health() replication.Health { return replication.Worst(v.Reasons) }

func (o *owner) view() View {
	record, live := o.record(), o.live.show()
	live.Attached, live.Accumulated = o.machine.attached(), -1
	figures, open := o.machine.figures()
	live.Figures, live.Open = figures, open
	switch {
	case open:
		live.Accumulated = figures.Accumulated()
	case record.Tracked() && !record.leftOpen():
		live.Accumulated = record.Pending
	}
	return View{Record: record, Live: live, State: record.State(), Reasons: health(record, live, time.Now())}
}

// AccumulationPercent is how much has accumulated, of the VM's total disk size; 0 when it is not known.
func (v View) AccumulationPercent() float64 {
	if total := v.totalBytes(); total > 0 && v.Accumulated > 0 {
		return float64(v.Accumulated) / float64(total) * 100
	}
	return 0
}

// NextResyncWindow is when the policy starts the required resync; zero when it does not, or none is required.
func (v View) NextResyncWindow() time.Time { return v.autoResyncAt(time.Now()) }

// Get is one relationship.
func (m *Manager) Get(vm string) (View, error) {
	o, err := m.owner(vm)
	if err != nil {
		return View{}, err
	}
	return o.view(), nil
}

// List is all of them, in the order of their names.
func (m *Manager) List() []View {
	var views []View
	for _, o := range m.all() {
		views = append(views, o.view())
	}
	return views
}

// Resyncs are a VM's resyncs, newest first, the present one with its live figures.
func (m *Manager) Resyncs(vm string) ([]ResyncView, error) {
	o, err := m.owner(vm)
	if err != nil {
		return nil, err
	}
	present := o.view()
	var found []Resync
	if err := m.config.Store.View(func(tx state.Tx) (err error) {
		found, err = history(tx, vm)
		return err
	}); err != nil {
		return nil, failure.Locate(err, vm, "")
	}
	slices.Reverse(found)
	views := make([]ResyncView, 0, len(found))
	for _, s := range found {
		views = append(views, resyncView(s, present))
	}
	return views, nil
}

// Resync is one of a VM's resyncs; the newest when id is empty.
func (m *Manager) Resync(vm string, id replication.ID) (ResyncView, error) {
	views, err := m.Resyncs(vm)
	if err != nil {
		return ResyncView{}, err
	}
	for _, view := range views {
		if id == "" || view.ID == id {
			return view, nil
		}
	}
	if id == "" {
		return ResyncView{}, failure.New(failure.NotFound, failure.ReasonNotFound, "no resync was started yet").
			On(vm, "").Try("Start one: vmreplica resync %s", vm)
	}
	return ResyncView{}, failure.New(failure.NotFound, failure.ReasonNotFound, "there is no resync %s", id).
		On(vm, "").Try("The last %d are kept: vmreplica resyncs %s", keptResyncs, vm)
}

// ResyncView is a resync as it is shown.
type ResyncView struct {
	Resync
	// Suspended is why it rests; nil when it does not.
	Suspended *Suspension
	// Progress is each disk's; empty when it does not run.
	Progress []DiskProgress
	// Merge is each disk's merge, while there is one.
	Merge       []PositionDisk
	NextAttempt time.Time
	// Problem is what it waits for; nil while it goes on.
	Problem *failure.Error
}

func resyncView(s Resync, present View) ResyncView {
	view := ResyncView{Resync: s}
	if present.Record.Active() == nil || present.Record.Active().ID != s.ID {
		return view
	}
	view.Resync = *present.Record.Active().clone()
	view.Suspended, view.NextAttempt = present.Suspension, present.NextAttempt
	view.Merge, view.Problem = present.Merge, present.Trouble
	if view.Problem == nil && present.MergeProblem != nil && view.awaitsMerge() {
		view.Problem = present.MergeProblem.Found
	}
	if !view.Resync.running() || len(present.Progress) != len(view.Disks) {
		return view
	}
	view.Progress = present.Progress
	for i, progress := range present.Progress {
		view.Disks[i].Figures = progress.Figures
	}
	return view
}
