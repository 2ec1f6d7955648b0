package receive

import (
	"context"
	"time"

	"vmreplica/internal/failure"
)

// drop gives the VM's disks back. Its sessions have ended.
func (r *Receiver) drop(vmName string) {
	r.mu.Lock()
	t := r.transfers[vmName]
	delete(r.transfers, vmName)
	r.mu.Unlock()
	if t != nil {
		t.release()
	}
}

// End stops a VM's streams and gives its disks back. The transfer stays open in its record.
func (r *Receiver) End(vmName string) {
	r.end(vmName, failure.New(failure.Conflict, failure.ReasonWrongState, "the transfer was ended"))
}

func (r *Receiver) end(vmName string, cause *failure.Error) {
	for {
		r.mu.Lock()
		t := r.transfers[vmName]
		r.mu.Unlock()
		if t == nil {
			return
		}
		t.changing.Lock()
		if r.current(vmName, t) {
			defer t.changing.Unlock()
			t.stopAll(cause.On(vmName, ""))
			r.drop(vmName)
			return
		}
		t.changing.Unlock()
	}
}

// Close ends every stream and gives all disks back; nothing is served afterwards.
func (r *Receiver) Close() {
	r.mu.Lock()
	r.closed = true
	names := make([]string, 0, len(r.transfers))
	for name := range r.transfers {
		names = append(names, name)
	}
	r.mu.Unlock()
	for _, name := range names {
		r.End(name)
	}
}

// stopAll stops the sessions and waits for them.
func (t *transfer) stopAll(cause error) {
	t.mu.Lock()
	var all []*running
	for _, one := range t.sessions {
		all = append(all, one)
	}
	t.mu.Unlock()
	for _, one := range all {
		one.stop(cause)
		<-one.done
	}
}

// awaitAll waits until the sessions have ended by themselves, as those that have finished do; CONFLICT when one
// still runs after a while.
func (t *transfer) awaitAll(ctx context.Context, atMost time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	t.mu.Lock()
	var all []*running
	for _, one := range t.sessions {
		all = append(all, one)
	}
	t.mu.Unlock()
	for _, one := range all {
		select {
		case <-one.done:
		case <-ctx.Done():
			return failure.New(failure.Conflict, failure.ReasonWrongState, "a stream of the transfer is still running").
				On(t.vm.Name(), "")
		}
	}
	return nil
}

// idleAfter is how long the disks of a transfer stay open without a stream and without a call; idleLook how often
// that is looked at.
const (
	idleAfter = 5 * time.Minute
	idleLook  = time.Minute
)

// Run closes the disks of transfers whose primary has vanished, until ctx ends.
func (r *Receiver) Run(ctx context.Context) error {
	ticker := time.NewTicker(idleLook)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			r.CloseIdle(idleAfter)
		case <-ctx.Done():
			return nil
		}
	}
}

// CloseIdle gives back the disks of VMs that have no stream and were not asked for anything for longer than
// atLeast. Their transfers stay open in their records, and the next call opens the disks again.
func (r *Receiver) CloseIdle(atLeast time.Duration) {
	r.mu.Lock()
	all := make(map[string]*transfer, len(r.transfers))
	for name, t := range r.transfers {
		all[name] = t
	}
	r.mu.Unlock()
	for name, t := range all {
		if !t.changing.TryLock() {
			continue // somebody is at it
		}
		if r.current(name, t) && t.idle(atLeast) {
			r.Log.Info("the disks of a transfer without a primary are closed", "vm", name)
			r.drop(name)
		}
		t.changing.Unlock()
	}
}

func (t *transfer) use() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.used = time.Now()
}

func (t *transfer) idle(atLeast time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.sessions) == 0 && time.Since(t.used) >= atLeast
}

// Supersede stops a VM's streams because the relationship's term was raised. Nothing that they had received is
// saved any more, and whoever has the higher term waits for their end.
func (r *Receiver) Supersede(vmName string, term uint64) {
	r.mu.Lock()
	t := r.transfers[vmName]
	r.mu.Unlock()
	if t == nil {
		return
	}
	stale := failure.New(failure.Precondition, failure.ReasonStaleTerm, "the relationship's term was raised to %d", term).
		On(vmName, "").Try("Roles have changed since; this primary must not send any more.")
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, one := range t.sessions {
		one.stop(stale)
	}
}

// Refuse stops a VM's streams with a cause that their primary is told, and gives its disks back.
func (r *Receiver) Refuse(vmName string, cause *failure.Error) { r.end(vmName, cause) }

// noteObstacle tells of err when it is something that stands in the way.
func (r *Receiver) noteObstacle(vmName string, err error) {
	if err == nil || r.Obstacles == nil {
		return
	}
	switch found := failure.Find(err); found.Reason {
	case failure.ReasonStorageFull:
		r.Obstacles.Full(vmName, found.Disk, found.Message)
	case failure.ReasonImageInUse:
		r.Obstacles.InUse(vmName, found.Disk, found.Message)
	}
}

func (r *Receiver) noteProgress(vmName string) {
	if r.Obstacles != nil {
		r.Obstacles.Progress(vmName)
	}
}
