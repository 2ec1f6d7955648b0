package render

import (
	"fmt"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// Measures writes how well replication has kept up, a row for each VM.
func (p Printer) Measures(list *vmreplicav1.ListReplicationsResponse) error {
	return p.Message(list, func(page *Page) {
		if len(list.GetReplications()) == 0 {
			page.Line("No VM is replicated here.")
			return
		}
		rows := newTable("VM", "HEALTH", "SINCE", "CYCLES", "MISSED", "FAILED", "AVG-SIZE", "MAX-SIZE", "AVG-TIME", "MAX-TIME",
			"PENDING", "LAST-SYNC", "NETWORK-FAILURES")
		for _, r := range list.GetReplications() {
			s := r.GetStatus()
			m := s.GetStatistics()
			rows.add(r.GetName(), Word(s.GetHealth()), distance(m.GetStartTime(), page.now, none),
				fmt.Sprint(m.GetCyclesCompleted()), fmt.Sprint(m.GetCyclesMissed()), fmt.Sprint(m.GetCyclesFailed()),
				averageSize(m), ofCycles(m, Size(m.GetMaxCycleBytes())), ofCycles(m, span(m.GetAverageCycleDuration())),
				ofCycles(m, span(m.GetMaxCycleDuration())), pending(s), distance(s.GetLastSynchronizedTime(), page.now, "never"),
				fmt.Sprint(m.GetNetworkFailures()))
			for _, reason := range bad(s) {
				rows.note("%s", reasonLine(reason))
			}
		}
		rows.on(page)
	})
}

// Measure writes one VM's figures, and the reasons for its health.
func (p Printer) Measure(r *vmreplicav1.Replication) error {
	return p.Message(r, func(page *Page) {
		s := r.GetStatus()
		page.section("Replication of the VM " + r.GetName())
		page.fact("State", Word(s.GetState()))
		page.fact("Health", Word(s.GetHealth()))
		page.fact("Last synchronized", moment(s.GetLastSynchronizedTime(), page.now))
		if text := pending(s); text != none {
			page.fact("Pending", text)
			page.fact("HRL", hrlFact(r))
		}
		page.schedule(s)
		page.reasons(s.GetHealthReasons())
		page.statistics(s.GetStatistics())
	})
}

// averageSize is what a cycle sent on the average.
func averageSize(m *vmreplicav1.ReplicationStatistics) string {
	if m.GetCyclesCompleted() == 0 {
		return none
	}
	return Size(int64(uint64(max(m.GetReplicatedBytes(), 0)) / m.GetCyclesCompleted()))
}

// ofCycles is a figure of cycles; "-" while there was none.
func ofCycles(m *vmreplicav1.ReplicationStatistics, figure string) string {
	if m.GetCyclesCompleted() == 0 {
		return none
	}
	return figure
}

// cycles writes the figures of cycles, as far as there were any.
func (p *Page) cycles(m *vmreplicav1.ReplicationStatistics) {
	if m.GetCyclesCompleted()+m.GetCyclesMissed()+m.GetCyclesFailed() == 0 {
		return
	}
	p.fact("Cycles completed", fmt.Sprint(m.GetCyclesCompleted()))
	p.fact("Cycles missed", fmt.Sprint(m.GetCyclesMissed()))
	p.fact("Cycles failed", fmt.Sprint(m.GetCyclesFailed()))
	p.fact("Size of a cycle", both(averageSize(m), ofCycles(m, Size(m.GetMaxCycleBytes()))))
	p.fact("Time of a cycle", both(ofCycles(m, span(m.GetAverageCycleDuration())), ofCycles(m, span(m.GetMaxCycleDuration()))))
	p.fact("Replicated", Size(m.GetReplicatedBytes()))
}

// both are an average and the most; nothing when neither is known.
func both(average, most string) string {
	if average == none && most == none {
		return none
	}
	return average + " on the average, " + most + " at most"
}
