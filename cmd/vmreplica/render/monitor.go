package render

import (
	"fmt"
	"strings"
	"time"

	"vmreplica/internal/failure"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// Monitoring's verdicts, as a plugin exits with them.
const (
	MonitorOK = iota
	MonitorWarning
	MonitorCritical
	MonitorUnknown
)

// Monitor writes the line that monitoring reads, with figures behind the bar, and answers the exit code.
func Monitor(list []*vmreplicav1.Replication, now time.Time) (line string, code int) {
	var troubles, figures []string
	code = MonitorOK
	for _, r := range list {
		verdict, why := monitored(r)
		code = worse(code, verdict)
		if why != "" {
			troubles = append(troubles, why)
		}
		figures = append(figures, figuresOf(r, now)...)
	}
	text := strings.Join(troubles, "; ")
	switch {
	case len(list) == 0:
		code, text = MonitorUnknown, "no VM is replicated here"
	case len(list) == 1 && text == "":
		text = list[0].GetName() + " is " + Word(list[0].GetStatus().GetState())
	case text == "":
		text = fmt.Sprintf("%d VMs are well", len(list))
	}
	text = fmt.Sprintf("VMREPLICA %s - %s", monitorWords[code], strings.ReplaceAll(Clean(text), "|", "/"))
	if len(figures) > 0 {
		text += " | " + strings.Join(figures, " ")
	}
	return text, code
}

// MonitorFailure is the line where nothing could be learnt.
func MonitorFailure(err error) (line string, code int) {
	text := strings.ReplaceAll(Clean(failure.Find(err).Error()), "|", "/")
	return fmt.Sprintf("VMREPLICA %s - %s", monitorWords[MonitorUnknown], text), MonitorUnknown
}

var monitorWords = []string{"OK", "WARNING", "CRITICAL", "UNKNOWN"}

// worse is the worse of two verdicts; critical is worse than not knowing.
func worse(a, b int) int {
	order := []int{MonitorOK: 0, MonitorWarning: 1, MonitorUnknown: 2, MonitorCritical: 3}
	if order[a] >= order[b] {
		return a
	}
	return b
}

func monitored(r *vmreplicav1.Replication) (verdict int, why string) {
	s := r.GetStatus()
	switch s.GetHealth() {
	case vmreplicav1.Health_HEALTH_NORMAL:
		return MonitorOK, ""
	case vmreplicav1.Health_HEALTH_WARNING:
		verdict = MonitorWarning
	case vmreplicav1.Health_HEALTH_CRITICAL:
		verdict = MonitorCritical
	default:
		return MonitorUnknown, r.GetName() + ": the health is not known"
	}
	reasons := bad(s)
	if len(reasons) == 0 {
		return verdict, r.GetName() + " is " + Word(s.GetState())
	}
	worst := reasons[0]
	for _, reason := range reasons {
		if reason.GetHealth() > worst.GetHealth() {
			worst = reason
		}
	}
	return verdict, r.GetName() + ": " + worst.GetMessage()
}

func figuresOf(r *vmreplicav1.Replication, now time.Time) []string {
	s, name := r.GetStatus(), r.GetName()
	var figures []string
	if proven := s.GetProvenTime(); proven != nil {
		figures = append(figures, fmt.Sprintf("%s_proven_age=%ds;;;0", name, max(0, now.Sub(proven.AsTime())/time.Second)))
	}
	if sum := sumProgress(s.GetDisks()); sum != nil {
		figures = append(figures, fmt.Sprintf("%s_compared=%d%%;;;0;100", name, percent(sum.GetComparedBytes(), sum.GetSizeBytes())))
	}
	if synchronized := s.GetLastSynchronizedTime(); synchronized != nil {
		figures = append(figures, fmt.Sprintf("%s_sync_age=%ds;;;0", name, max(0, now.Sub(synchronized.AsTime())/time.Second)))
	}
	if pending(s) != none {
		critical := ""
		if limit := hrlLimit(r.GetSpec()); limit > 0 {
			critical = fmt.Sprint(limit)
		}
		figures = append(figures, fmt.Sprintf("%s_pending=%dB;;;0", name, s.GetPendingBytes()),
			fmt.Sprintf("%s_hrl=%.1f%%;;%s;0;100", name, s.GetHrlAccumulationPercent(), critical),
			fmt.Sprintf("%s_missed=%dc", name, s.GetStatistics().GetCyclesMissed()))
	}
	statistics := s.GetStatistics()
	return append(figures, fmt.Sprintf("%s_sent=%dc", name, statistics.GetSentBytes()),
		fmt.Sprintf("%s_failed=%dc", name, statistics.GetTransfersFailed()))
}
