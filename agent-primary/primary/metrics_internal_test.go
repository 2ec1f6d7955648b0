package primary

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/timestamppb"

	"vmreplica/internal/replication"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// stands collects how one VM stands.
type stands struct {
	spec   replication.Spec
	status *vmreplicav1.ReplicationStatus
}

func (stands) Describe(chan<- *prometheus.Desc) {}

func (s stands) Collect(found chan<- prometheus.Metric) { standing("web01", s.spec, s.status, found) }

func TestMetricsOfAMachineThatRuns(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	running := stands{
		replication.Spec{Interval: 30 * time.Second, HRLLimitPercent: 50},
		&vmreplicav1.ReplicationStatus{
			Tracked: true, Attached: true, PendingBytes: 12 << 20, HrlAccumulationPercent: 12.5,
			LastSynchronizedTime: timestamppb.New(time.Unix(1_700_000_000, 5e8)),
			Statistics:           &vmreplicav1.ReplicationStatistics{CyclesCompleted: 100, CyclesMissed: 3, CyclesFailed: 1},
		},
	}
	registry.MustRegister(running)
	const want = `
# HELP vmreplica_attached 1 while a machine has its disks attached through the agent.
# TYPE vmreplica_attached gauge
vmreplica_attached{vm="web01"} 1
# HELP vmreplica_cycle_interval_seconds How often the changes of a tracked machine are sent.
# TYPE vmreplica_cycle_interval_seconds gauge
vmreplica_cycle_interval_seconds{vm="web01"} 30
# HELP vmreplica_cycles_completed_total Cycles that were completed since the statistics were reset.
# TYPE vmreplica_cycles_completed_total counter
vmreplica_cycles_completed_total{vm="web01"} 100
# HELP vmreplica_cycles_failed_total Cycles that did not complete.
# TYPE vmreplica_cycles_failed_total counter
vmreplica_cycles_failed_total{vm="web01"} 1
# HELP vmreplica_cycles_missed_total Cycles that took longer than the interval.
# TYPE vmreplica_cycles_missed_total counter
vmreplica_cycles_missed_total{vm="web01"} 3
# HELP vmreplica_hrl_accumulation_ratio pending_bytes of the VM's total disk size.
# TYPE vmreplica_hrl_accumulation_ratio gauge
vmreplica_hrl_accumulation_ratio{vm="web01"} 0.125
# HELP vmreplica_hrl_limit_ratio The accumulation from which on a resync is required; 0 is no limit.
# TYPE vmreplica_hrl_limit_ratio gauge
vmreplica_hrl_limit_ratio{vm="web01"} 0.5
# HELP vmreplica_last_synchronized_timestamp_seconds When the replica was last brought up to date.
# TYPE vmreplica_last_synchronized_timestamp_seconds gauge
vmreplica_last_synchronized_timestamp_seconds{vm="web01"} 1.7000000005e+09
# HELP vmreplica_pending_bytes What the replica does not have, of a tracked machine.
# TYPE vmreplica_pending_bytes gauge
vmreplica_pending_bytes{vm="web01"} 1.2582912e+07
# HELP vmreplica_tracked 1 where the VM's writes are tracked.
# TYPE vmreplica_tracked gauge
vmreplica_tracked{vm="web01"} 1
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
		t.Fatal(err)
	}
	// What is not known is not said: a series of zeros would be a replica that lacks nothing.
	for name, change := range map[string]func(*vmreplicav1.ReplicationStatus){
		"untracked": func(s *vmreplicav1.ReplicationStatus) { s.Tracked = false },
		"unknown":   func(s *vmreplicav1.ReplicationStatus) { s.PendingBytes = -1 },
	} {
		unknown := &vmreplicav1.ReplicationStatus{Tracked: true}
		change(unknown)
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(stands{status: unknown})
		if count, err := testutil.GatherAndCount(registry); err != nil || count != 7 {
			t.Errorf("%s: %d metrics, %v", name, count, err)
		}
	}
}

// Every name that the deployed rules read is one that the agent serves.
func TestTheRulesReadWhatIsServed(t *testing.T) {
	served := map[string]bool{}
	descriptions := make(chan *prometheus.Desc, 100)
	(&metrics{}).Describe(descriptions)
	close(descriptions)
	for d := range descriptions {
		_, rest, _ := strings.Cut(d.String(), `fqName: "`)
		name, _, _ := strings.Cut(rest, `"`)
		served[name] = true
	}
	for _, name := range ruleMetrics(t) {
		if !served[name] {
			t.Errorf("the rules read %s, which is not served", name)
		}
	}
}

// ruleMetrics are the metrics that the deployed rules name in their expressions.
func ruleMetrics(t *testing.T) []string {
	t.Helper()
	rules, err := os.ReadFile("../../deploy/prometheus/vmreplica.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Groups []struct{ Rules []struct{ Expr string } }
	}
	if err := yaml.Unmarshal(rules, &document); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, group := range document.Groups {
		for _, rule := range group.Rules {
			names = append(names, metricName.FindAllString(rule.Expr, -1)...)
		}
	}
	if len(names) < 10 {
		t.Fatalf("the rules name only %q", names)
	}
	// A recorded series has the colon of its level before its name.
	return slices.DeleteFunc(names, func(name string) bool { return strings.Contains(name, ":") })
}

var metricName = regexp.MustCompile(`[a-z:]*\bvmreplica_[a-z_]+`)
