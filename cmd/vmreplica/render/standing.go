package render

import (
	"fmt"
	"strconv"

	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// pending is what the replica does not have; "-" where nobody knows, as without tracking.
func pending(s *vmreplicav1.ReplicationStatus) string {
	if !s.GetTracked() {
		return none
	}
	return Size(s.GetPendingBytes())
}

// hrlLimit is how much may accumulate before a resync is required, in percent of the VM's total disk size; 0 is no limit.
func hrlLimit(spec *vmreplicav1.ReplicationSpec) int32 {
	if spec == nil || spec.HrlLimitPercent == nil {
		return replication.DefaultHRLLimitPercent
	}
	return spec.GetHrlLimitPercent()
}

// accumulation is how much of the HRL's limit is used, in whole percents.
func accumulation(r *vmreplicav1.Replication) string {
	s := r.GetStatus()
	if !s.GetTracked() || s.GetPendingBytes() < 0 {
		return none
	}
	limit := hrlLimit(r.GetSpec())
	if limit == 0 {
		return "no limit"
	}
	return fmt.Sprintf("%d%%", int64(s.GetHrlAccumulationPercent()/float64(limit)*100))
}

// lastSent is what the cycle sent whose cut the replica holds; "-" after a resync, whose figures are its own.
func lastSent(s *vmreplicav1.ReplicationStatus) string {
	cycle := s.GetLastCycle()
	if cycle == nil || cycle.GetCut() != s.GetCut() {
		return none
	}
	return Size(cycle.GetSentBytes())
}

// tracking is whether writes are seen, in a word.
func tracking(s *vmreplicav1.ReplicationStatus) string {
	switch {
	case s.GetMode() == vmreplicav1.ReplicationMode_REPLICATION_MODE_REPLICA:
		return none
	case s.GetAttached():
		return "attached"
	case s.GetTracked():
		return "tracked"
	default:
		return "untracked"
	}
}

// settings writes what can be changed with set.
func (p *Page) settings(spec *vmreplicav1.ReplicationSpec) {
	if spec.GetInterval() == nil && spec.GetAutoResync() == nil {
		return
	}
	p.section("Settings")
	p.fact("Interval", Span(spec.GetInterval().AsDuration()))
	points := "none beside the newest content"
	if n := spec.GetRecoveryPoints(); n > 0 {
		points = strconv.Itoa(int(n)) + ", one each hour"
	}
	p.fact("Recovery points", points)
	p.fact("Automatic resync", autoResync(spec.GetAutoResync()))
	limit := "none"
	if percent := hrlLimit(spec); percent > 0 {
		limit = fmt.Sprintf("%d%% of the VM's total disk size", percent)
	}
	p.fact("HRL limit", limit)
	socket := spec.GetQmpSocket()
	if socket == "" {
		socket = "not known: external snapshots above the export are not noticed"
	}
	p.fact("QMP socket", socket)
}

// autoResync is when a required resync starts by itself, in words.
func autoResync(policy *vmreplicav1.AutoResync) string {
	switch policy.GetMode() {
	case vmreplicav1.AutoResync_MODE_OFF:
		return "off: only by hand"
	case vmreplicav1.AutoResync_MODE_ALWAYS:
		return "always: as soon as it is required"
	}
	window, zone, end := policy.GetWindow(), policy.GetTimeZone(), "one that runs at its end finishes"
	if window == "" {
		window = replication.DefaultWindow.String()
	}
	if zone == "" {
		zone = "the agent's time zone"
	}
	if policy.GetPauseAtEnd() {
		end = "one that runs at its end rests until the next"
	}
	return fmt.Sprintf("in the window %s, %s; %s", window, zone, end)
}

// schedule writes what comes next by itself.
func (p *Page) schedule(s *vmreplicav1.ReplicationStatus) {
	if at := s.GetNextCycleTime(); at != nil {
		p.fact("Next cycle", moment(at, p.now))
	}
	if at := s.GetNextResyncTime(); at != nil {
		p.fact("Next resync", moment(at, p.now))
	}
	if at := s.GetNextResyncWindowTime(); at != nil {
		p.fact("Next resync window", moment(at, p.now))
	}
}

// tracked writes whether writes are seen and what the replica lacks.
func (p *Page) tracked(r *vmreplicav1.Replication) {
	s := r.GetStatus()
	if s.GetMode() == vmreplicav1.ReplicationMode_REPLICATION_MODE_REPLICA {
		return
	}
	exact := s.GetResyncCause() == vmreplicav1.ResyncCause_RESYNC_CAUSE_UNSPECIFIED
	switch {
	case s.GetTracked() && exact:
		p.fact("Tracked", "yes: each write is marked")
	case s.GetTracked():
		p.fact("Tracked", "yes, but the marks do not tell all that the replica lacks until it is resynchronized")
	default:
		p.fact("Tracked", "no: it is compared by the stamps of its images")
	}
	attached := "no: no machine has its disks through the agent"
	if s.GetAttached() {
		attached = "yes: a machine has its disks through the agent"
	}
	p.fact("Attached", attached)
	if text := pending(s); text != none {
		p.fact("Pending", text+", which would be lost if the replica were needed now")
		p.fact("HRL", hrlFact(r))
	}
}

func hrlFact(r *vmreplicav1.Replication) string {
	text := fmt.Sprintf("%.1f%% of the VM's total disk size has accumulated", r.GetStatus().GetHrlAccumulationPercent())
	if limit := hrlLimit(r.GetSpec()); limit > 0 {
		return fmt.Sprintf("%s, %s of the limit of %d%%", text, accumulation(r), limit)
	}
	return text + ", without a limit"
}

// lastCycle writes the cycle that was completed last.
func (p *Page) lastCycle(c *vmreplicav1.Cycle) {
	if c == nil {
		return
	}
	p.fact("Last cycle", moment(c.GetEndTime(), p.now))
	p.fact("It took", span(c.GetDuration()))
	p.fact("It sent", fmt.Sprintf("%s, %s on the wire", Size(c.GetSentBytes()), Size(c.GetWireBytes())))
	p.fact("Its cut", join(", of ", c.GetCut(), moment(c.GetCutTime(), p.now)))
}
