package relationship_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// wantModified checks that a changed image is noticed although something else is pending.
func (p *pair) wantModified(a agent) {
	p.t.Helper()
	p.images.write(rootPath) // the machine was started
	time.Sleep(time.Minute)
	synctest.Wait()
	view := p.want(a, replication.WaitingForStartResynchronize)
	if view.Cause != replication.CauseImageModified || view.Health() != replication.HealthCritical {
		p.t.Fatalf("cause %v, %s", view.Cause, reasonCodes(view))
	}
	if n := p.count(a, event.TypeResyncRequired); n != 1 {
		p.t.Fatalf("%d events say that a resync is required", n)
	}
}

func TestAChangedImageIsNoticedWhileAMergeWaits(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		p.replica.merges = 1 << 30
		a := p.replicating()
		defer a.stop()
		p.wantModified(a)
		p.replica.set(func(r *replica) { r.merges = 0 })
		p.settle()
		if view := p.want(a, replication.WaitingForStartResynchronize); view.Resync.State != replication.ResyncDone {
			t.Fatalf("the merge did not end: %+v", view.Resync)
		}
	})
}

func TestAChangedImageIsNoticedWhileATransferIsYetToBeDiscarded(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		p.during = func(context.Context, int) error {
			p.replica.set(func(r *replica) { r.down = true })
			return nil
		}
		p.begin(a, replication.KindVerify)
		time.Sleep(time.Minute)
		synctest.Wait()
		p.wantModified(a)
	})
}

func TestAChangedImageIsNoticedWhileAResyncWaits(t *testing.T) {
	for name, hinder := range map[string]func(p *pair){
		"for the replica": func(p *pair) { p.replica.set(func(r *replica) { r.down = true }) },
		"for the image": func(p *pair) {
			p.images.set(func(i *images) {
				i.inUse = failure.New(failure.Precondition, failure.ReasonImageInUse, "qemu has it open")
			})
		},
	} {
		for _, kind := range []replication.ResyncKind{replication.KindResync, replication.KindVerify} {
			t.Run(kind.String()+" waits "+name, func(t *testing.T) {
				bubble(t, func(t *testing.T, p *pair) {
					a := p.replicating()
					defer a.stop()
					hinder(p)
					p.begin(a, kind)
					p.settle()
					p.wantModified(a)
					p.replica.set(func(r *replica) { r.down = false })
					p.images.set(func(i *images) { i.inUse = nil })
					time.Sleep(2 * time.Minute)
					p.settle()
					if kind == replication.KindResync {
						p.want(a, replication.Replicating)
						return
					}
					if view := p.want(a, replication.WaitingForStartResynchronize); view.Resync.State != replication.ResyncFailed ||
						view.Cause != replication.CauseImageModified || p.count(a, event.TypeResyncRequired) != 1 {
						t.Fatalf("cause %v, %d events, resync %+v", view.Cause, p.count(a, event.TypeResyncRequired), view.Resync)
					}
				})
			})
		}
	}
}
