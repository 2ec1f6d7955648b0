package relationship

import (
	"maps"
	"sync"
	"time"

	"vmreplica/agent-primary/resync"
	"vmreplica/agent-primary/ship"
	"vmreplica/agent-primary/tracking"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// Live is what is happening at this moment; a restart forgets it.
type Live struct {
	Activity replication.Activity
	// Trouble is why the present task waits to try again; nil when it does not. Attempts failed in a row since
	// TroubleSince, and the next is made at NextAttempt.
	Trouble      *failure.Error
	TroubleSince time.Time
	Attempts     int
	NextAttempt  time.Time
	// Waiting says that as many relationships transfer as may.
	Waiting bool
	// Missing are images that could not be looked at, by disk, some of them since MissingSince.
	Missing      map[string]*failure.Error
	MissingSince time.Time
	// Progress is each disk's, in the order of the record; empty when no resync has run since the start.
	Progress []DiskProgress
	// Merge is what the replica last told of its merge.
	Merge []PositionDisk
	// MergeProblem is what the replica last told to stand in its way; nil when nothing does.
	MergeProblem *MergeProblem

	// InStep is when the replica last lacked nothing; zero when it has not since the agent's start.
	InStep time.Time
	// Churn says that the machine writes faster than the link takes; nil while it does not.
	Churn *Churn
	// NextCycle is when the next cycle begins; zero when none is due.
	NextCycle time.Time
	// Attached says that the machine has a connection to a disk, Open that its disks are open.
	Attached, Open bool
	// Accumulated is what the replica does not have, in bytes; -1 when that is not known.
	Accumulated int64
	// Figures are those of the open disks.
	Figures tracking.Figures
	// Shipping are the counters of what is shipped, or was last.
	Shipping ship.Figures
	// Snapshots are disks that the machine writes past, with what stands above them, as its monitor last told;
	// MonitorTrouble is why it could not be asked.
	Snapshots      map[string]string
	MonitorTrouble *failure.Error
	// monitorAsked is when it was last asked.
	monitorAsked time.Time

	// looked says that the images were looked at since the agent's start: by a check or a whole pass.
	looked bool
	// interrupted is the resync that ran when the agent last ended, until it goes on.
	interrupted replication.ID
	// reconciled is when the replica was last found in step; zero when it did not answer.
	reconciled time.Time
}

// Churn is a machine that writes faster than its changes can be sent.
type Churn struct {
	ship.Churn
	Since time.Time
}

// DiskProgress is how far one disk's pass has come.
type DiskProgress struct {
	resync.Figures
	// BytesPerSecond is the present rate of comparing.
	BytesPerSecond int64
	// StalledSince is since when nothing has moved; zero while something does.
	StalledSince time.Time
}

// live guards a Live and the counters behind its Progress.
type live struct {
	mu     sync.Mutex
	now    Live               // without Progress; guarded by mu
	of     replication.ID     // the resync that passes belong to; guarded by mu
	passes []*resync.Progress // guarded by mu
	meters []meter            // guarded by mu
	// sent counts what is shipped: of a cycle, or of a resync that catches up. Guarded by mu.
	sent *ship.Progress
}

// ships begins the counters of a shipment.
func (l *live) ships() *ship.Progress {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent = new(ship.Progress)
	return l.sent
}

// shipping are the counters of the last shipment.
func (l *live) shipping() ship.Figures {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sent == nil {
		return ship.Figures{}
	}
	return l.sent.Figures()
}

// change alters what is happening.
func (l *live) change(alter func(*Live)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	alter(&l.now)
}

// show is a copy of what is happening.
func (l *live) show() Live {
	l.mu.Lock()
	defer l.mu.Unlock()
	shown := l.now
	shown.Snapshots = maps.Clone(l.now.Snapshots)
	if l.sent != nil {
		shown.Shipping = l.sent.Figures()
	}
	shown.Missing = make(map[string]*failure.Error, len(l.now.Missing))
	for disk, missing := range l.now.Missing {
		shown.Missing[disk] = missing
	}
	for i, pass := range l.passes {
		shown.Progress = append(shown.Progress, DiskProgress{
			Figures: pass.Figures(), BytesPerSecond: l.meters[i].rate(), StalledSince: l.meters[i].stalledSince(),
		})
	}
	return shown
}

// follow answers the counters of a resync's passes, those of before if it is the same resync.
func (l *live) follow(s *Resync) []*resync.Progress {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of != s.ID {
		l.of, l.passes, l.meters = s.ID, nil, make([]meter, len(s.Disks))
		for _, disk := range s.Disks {
			pass := new(resync.Progress)
			pass.Restore(disk.Figures)
			l.passes = append(l.passes, pass)
		}
		l.now.Merge = nil
	}
	return l.passes
}

// figures are the counters of a resync; none when its passes have not run here.
func (l *live) figures(of replication.ID) []resync.Figures {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of != of {
		return nil
	}
	var figures []resync.Figures
	for _, pass := range l.passes {
		figures = append(figures, pass.Figures())
	}
	return figures
}

// rest says that no pass runs: there is no rate, and nothing is stalled.
func (l *live) rest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.meters)
}

// sample notes how far each pass is, for its rate.
func (l *live) sample(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, pass := range l.passes {
		l.meters[i].sample(now, pass.Figures())
	}
}
