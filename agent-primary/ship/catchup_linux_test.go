package ship_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vmreplica/agent-primary/ship"
	"vmreplica/blockdiff"
	"vmreplica/internal/replication"
)

func TestEveryCutIsOneInstantBitForBit(t *testing.T) {
	const writers, each = 6, 300_001
	for _, test := range []struct {
		name   string
		budget int64
	}{{"ample", ample}, {"budget of 16 blocks", 16 << 12}} {
		t.Run(test.name, func(t *testing.T) {
			const size = writers*each/512*512 + 1024
			m := newMachine(t, test.budget, size, size, size+512)
			var programs []*program
			var stop atomic.Bool
			var running sync.WaitGroup
			defer running.Wait()
			defer stop.Store(true)
			for i := range int64(writers) {
				p := m.program(uint64(i), i*each, each)
				programs = append(programs, p)
				running.Go(func() {
					for !stop.Load() {
						if err := p.step(); err != nil {
							t.Error(err)
							return
						}
						if p.done%64 == 0 {
							time.Sleep(time.Millisecond)
						}
						runtime.Gosched()
					}
				})
			}
			rounds, last := 0, make([]int, writers)
			for number := range 15 {
				before := make([]int, writers)
				for i, p := range programs {
					before[i] = p.operations()
				}
				began := time.Now()
				outcome := m.cycle()
				if outcome.CutTime.Before(began.Add(-time.Second)) || outcome.CutTime.After(time.Now().Add(time.Second)) {
					t.Errorf("the cut is of %v", outcome.CutTime)
				}
				rounds += outcome.Rounds
				for i, p := range programs {
					which, known := p.held()
					if !known || which+1 < before[i] {
						t.Fatalf("cut %d: program %d had done %d operations, the replica holds the %d. (%v)", number, i, before[i], which, known)
					}
					last[i] = max(last[i], which)
				}
			}
			stop.Store(true)
			running.Wait()
			m.cycle()
			m.equal()
			if f := m.group.Figures(); f.Accumulated() != 0 || f.Kept != 0 {
				t.Fatalf("%+v", f)
			}
			if last[0] < 20 {
				t.Errorf("the machine wrote only %d times", last[0])
			}
			t.Logf("%d rounds, %d operations", rounds, last)
		})
	}
}

func TestEveryDiskHasTheCutThoughNothingIsMarked(t *testing.T) {
	m := newMachine(t, ample, 1<<20+512, 2<<20, 512)
	m.write(1, 5000, 10)
	cut := replication.NewID()
	outcome, err := ship.CatchUp(t.Context(), m.replica, m.options(cut))
	must(t, err)
	m.replica.commit(cut, outcome)
	must(t, outcome.Epoch.Ack())
	m.equal()
	geometry, err := blockdiff.NewGeometry(1<<20 + 512)
	must(t, err)
	if outcome.Disks[0].Root != m.replica.prover.StartShipment(geometry) || outcome.Disks[0].Bytes != 0 || outcome.Disks[1].Bytes != 4096 {
		t.Fatalf("%+v", outcome)
	}
	if len(m.replica.opens) != 3 || outcome.Rounds != 1 || outcome.Epoch.ID != cut {
		t.Fatalf("%d shipments in %d rounds", len(m.replica.opens), outcome.Rounds)
	}
	for _, open := range m.replica.opens {
		if open.Shipment != cut || open.Session != 1 {
			t.Errorf("%+v", open)
		}
	}
}
