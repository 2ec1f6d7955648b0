package relationship

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"vmreplica/agent-primary/resync"
	"vmreplica/agent-primary/tracking"
	"vmreplica/blockdiff"
	"vmreplica/internal/disk"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

var noon = time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC)

// operation is what may be asked of a record in any state.
type operation struct {
	name  string
	apply func(Record) (Record, []event.Event, error)
}

var operations = []operation{
	{"start initial", func(r Record) (Record, []event.Event, error) {
		return r.start(noon, Start{Kind: replication.KindInitial})
	}},
	{"start resync", func(r Record) (Record, []event.Event, error) {
		return r.start(noon, Start{Kind: replication.KindResync})
	}},
	{"start verify", func(r Record) (Record, []event.Event, error) {
		return r.start(noon, Start{Kind: replication.KindVerify})
	}},
	{"cancel", func(r Record) (Record, []event.Event, error) { return r.cancel(noon, nil) }},
	{"suspend", func(r Record) (Record, []event.Event, error) { return r.suspend(noon, "why", nil) }},
	{"resume", Record.resume},
	{"resynchronize", func(r Record) (Record, []event.Event, error) { return r.resynchronize(noon, time.Time{}) }},
	{"modified", func(r Record) (Record, []event.Event, error) {
		return r.modified(noon, replication.CauseImageModified, "root", "written")
	}},
	{"begin", func(r Record) (Record, []event.Event, error) { return r.begin(noon, blockdiff.BLAKE3, cuts(1)) }},
	{"again", func(r Record) (Record, []event.Event, error) {
		return r.again(noon, map[int]tracking.Cut{0: cuts(2)[0]}, "root", "written")
	}},
	{"commit", func(r Record) (Record, []event.Event, error) {
		return r.commit(noon, equal(), nil, replication.NewID(), nil)
	}},
	{"committed", func(r Record) (Record, []event.Event, error) { return r.committed(noon) }},
	{"merging", Record.merging},
	{"done", func(r Record) (Record, []event.Event, error) { return r.done(noon) }},
	{"lost", func(r Record) (Record, []event.Event, error) { return r.lost(noon, "root", errNoRecord) }},
	{"verified equal", func(r Record) (Record, []event.Event, error) { return r.verified(noon, equal(), nil) }},
	{"verified differing", func(r Record) (Record, []event.Event, error) { return r.verified(noon, differing(), nil) }},
	{"fail", func(r Record) (Record, []event.Event, error) {
		return r.fail(noon, failure.New(failure.Precondition, failure.ReasonImageMissing, "gone"), nil)
	}},
}

func cuts(version int64) []tracking.Cut {
	return []tracking.Cut{{ID: replication.NewID(), Stamp: disk.Stamp{ModifiedNanoseconds: version}}}
}

func equal() resync.Outcome {
	return resync.Outcome{Disks: []resync.DiskOutcome{{ID: "root", Root: blockdiff.Hash{1}, ReplicaRoot: blockdiff.Hash{1}}}}
}

func differing() resync.Outcome {
	return resync.Outcome{Disks: []resync.DiskOutcome{{ID: "root", Root: blockdiff.Hash{1}, ReplicaRoot: blockdiff.Hash{2}}}}
}

func ready() Record {
	return Record{Name: "web01", UID: replication.NewID(), Prepared: true, Term: 1,
		Disks: []Disk{{ID: "root", Path: "/i/root", SizeBytes: 1 << 20, LogicalSectorSize: 512}}}
}

// reach applies operations by name; each must succeed.
func reach(t *testing.T, r Record, names ...string) Record {
	t.Helper()
	for _, name := range names {
		at := slices.IndexFunc(operations, func(o operation) bool { return o.name == name })
		next, _, err := operations[at].apply(r)
		if err != nil {
			t.Fatalf("%s in %v: %v", name, r.State(), err)
		}
		r = next
	}
	return r
}

var copied = []string{"start initial", "begin", "commit", "committed", "merging", "done"}

// situations are every state, by how it is reached, with what each operator's operation answers there: a state
// or a reason of refusal. An operation that is missing has no row and fails the test.
var situations = map[string]struct {
	path []string
	want map[string]any
}{
	"ready": {nil, map[string]any{
		"start initial": replication.ReadyForInitialReplication, "start resync": failure.ReasonWrongState,
		"start verify": failure.ReasonWrongState, "cancel": failure.ReasonWrongState, "suspend": replication.Suspended,
		"resume": replication.ReadyForInitialReplication, "resynchronize": replication.ReadyForInitialReplication,
	}},
	"copying": {[]string{"start initial", "begin"}, map[string]any{
		"start initial": failure.ReasonResyncRunning, "start resync": failure.ReasonResyncRunning,
		"start verify": failure.ReasonResyncRunning, "cancel": replication.ReadyForInitialReplication,
		"suspend": replication.ResynchronizeSuspended, "resume": replication.InitialReplicationInProgress,
		"resynchronize": replication.InitialReplicationInProgress,
	}},
	"replicating": {copied, map[string]any{
		"start initial": failure.ReasonWrongState, "start resync": replication.Replicating,
		"start verify": replication.Replicating, "cancel": failure.ReasonWrongState, "suspend": replication.Suspended,
		"resume": replication.Replicating, "resynchronize": replication.Replicating,
	}},
	"merging": {copied[:5], map[string]any{
		"start initial": failure.ReasonResyncRunning, "start resync": failure.ReasonResyncRunning,
		"start verify": failure.ReasonResyncRunning, "cancel": failure.ReasonCommitted, "suspend": replication.Suspended,
		"resume": replication.Replicating, "resynchronize": replication.Replicating,
	}},
	"resync required": {append(slices.Clone(copied), "modified"), map[string]any{
		"start initial": failure.ReasonWrongState, "start resync": replication.WaitingForStartResynchronize,
		"start verify": failure.ReasonWrongState, "cancel": failure.ReasonWrongState, "suspend": replication.Suspended,
		"resume": replication.WaitingForStartResynchronize, "resynchronize": replication.WaitingForStartResynchronize,
	}},
	"resync scheduled": {append(slices.Clone(copied), "start resync"), map[string]any{
		"start initial": failure.ReasonResyncRunning, "start resync": failure.ReasonResyncRunning,
		"start verify": failure.ReasonResyncRunning, "cancel": replication.Replicating, "suspend": replication.Suspended,
		"resume": replication.Replicating, "resynchronize": replication.Replicating,
	}},
	"resynchronizing": {append(slices.Clone(copied), "start resync", "begin"), map[string]any{
		"start initial": failure.ReasonResyncRunning, "start resync": failure.ReasonResyncRunning,
		"start verify": failure.ReasonResyncRunning, "cancel": replication.WaitingForStartResynchronize,
		"suspend": replication.ResynchronizeSuspended, "resume": replication.Resynchronizing,
		"resynchronize": replication.Resynchronizing,
	}},
	"committing": {append(slices.Clone(copied), "start resync", "begin", "commit"), map[string]any{
		"start initial": failure.ReasonResyncRunning, "start resync": failure.ReasonResyncRunning,
		"start verify": failure.ReasonResyncRunning, "cancel": failure.ReasonCommitted,
		"suspend": replication.ResynchronizeSuspended, "resume": replication.Resynchronizing,
		"resynchronize": replication.Resynchronizing,
	}},
	"verifying": {append(slices.Clone(copied), "start verify", "begin"), map[string]any{
		"start initial": failure.ReasonResyncRunning, "start resync": failure.ReasonResyncRunning,
		"start verify": failure.ReasonResyncRunning, "cancel": replication.Replicating, "suspend": replication.Suspended,
		"resume": replication.Replicating, "resynchronize": replication.Replicating,
	}},
	"suspended": {append(slices.Clone(copied), "suspend"), map[string]any{
		"start initial": failure.ReasonWrongState, "start resync": failure.ReasonWrongState,
		"start verify": failure.ReasonWrongState, "cancel": failure.ReasonWrongState, "suspend": replication.Suspended,
		"resume": replication.Replicating, "resynchronize": replication.Replicating,
	}},
	"resync suspended": {append(slices.Clone(copied), "start resync", "begin", "suspend"), map[string]any{
		"start initial": failure.ReasonResyncRunning, "start resync": failure.ReasonResyncRunning,
		"start verify": failure.ReasonResyncRunning, "cancel": replication.Suspended,
		"suspend": replication.ResynchronizeSuspended, "resume": replication.Resynchronizing,
		"resynchronize": replication.Resynchronizing,
	}},
}

func TestEveryOperationInEveryState(t *testing.T) {
	operators := operations[:7]
	for name, situation := range situations {
		for _, operation := range operators {
			t.Run(name+", "+operation.name, func(t *testing.T) {
				want, known := situation.want[operation.name]
				if !known {
					t.Fatal("the table has no row")
				}
				before := reach(t, ready(), situation.path...)
				after, facts, err := operation.apply(before)
				if err != nil {
					found := failure.Find(err)
					if found.Reason != want || found.Remedy == "" && operation.name != "cancel" || len(facts) > 0 {
						t.Fatalf("refused with %v, want %v and a remedy", err, want)
					}
					return
				}
				if after.State() != want {
					t.Fatalf("%v became %v, want %v", before.State(), after.State(), want)
				}
				checkRecord(t, after)
			})
		}
	}
}

// checkRecord holds what is true of every record, however it came about.
func checkRecord(t *testing.T, r Record) {
	t.Helper()
	active := r.Active()
	if r.State() == replication.Replicating {
		if r.Lineage == "" || r.Cut == "" || r.ProvenRoot == "" || r.ProvenTime.IsZero() || r.Cause != replication.CauseNone {
			t.Fatalf("Replicating is claimed without proof: %+v", r)
		}
		if active != nil && active.voids() {
			t.Fatalf("Replicating is claimed of a void baseline: %+v", active)
		}
	}
	if r.Resync != nil && r.Resync.State.Ended() && (r.Resync.EndTime.IsZero() || r.Resync.Result == "") {
		t.Fatalf("a resync ended without saying how: %+v", r.Resync)
	}
	// Every record leads on: by a task, at a time, or by an operator.
	todo, wake := next(r, noon, due{check: noon.Add(time.Minute), cycle: noon.Add(time.Minute)})
	if todo != taskNone || !wake.IsZero() {
		return
	}
	_, _, resume := r.resume()
	_, _, initial := r.start(noon, Start{Kind: replication.KindInitial})
	_, _, again := r.start(noon, Start{Kind: replication.KindResync})
	if (r.Suspension == nil || resume != nil) && initial != nil && again != nil {
		t.Fatalf("nothing leads on from %v: %+v", r.State(), r)
	}
}

func TestNoSequenceOfTransitionsClaimsWhatIsNotProven(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 7))
		r := ready()
		for range 60 {
			operation := operations[random.IntN(len(operations))]
			if r.Active() == nil && operation.name == "again" {
				continue
			}
			before := r.clone()
			after, _, err := operation.apply(r)
			if err == nil {
				r = after
			}
			checkRecord(t, r)
			if before.Resync != nil && before.Resync.State.Ended() && r.Resync.ID == before.Resync.ID && r.Resync.State != before.Resync.State {
				t.Fatalf("seed %d: %s brought an ended resync back", seed, operation.name)
			}
		}
	}
}

func TestATransitionLeavesTheRecordBeforeItAlone(t *testing.T) {
	for name, situation := range situations {
		for _, operation := range operations {
			before := reach(t, ready(), situation.path...)
			kept := before.clone()
			_, _, _ = operation.apply(before)
			if !same(before, kept) {
				t.Errorf("%s in %s changed the record in place", operation.name, name)
			}
		}
	}
}

func same(a, b Record) bool {
	if (a.Resync == nil) != (b.Resync == nil) || a.State() != b.State() || !slices.Equal(a.Abandoned, b.Abandoned) {
		return false
	}
	return a.Resync == nil || a.Resync.State == b.Resync.State && slices.Equal(a.Resync.Disks, b.Resync.Disks) &&
		slices.Equal(a.Disks, b.Disks)
}

func TestJudge(t *testing.T) {
	const lineage, cut, other = replication.ID("11111111111111111111111111111111"),
		replication.ID("22222222222222222222222222222222"), replication.ID("33333333333333333333333333333333")
	rest := ready()
	rest.Lineage, rest.Cut = lineage, cut
	committing := rest
	committing.Resync = &Resync{State: replication.ResyncCommitting, Transfer: other, Lineage: "aa", Cut: "bb"}
	cases := map[string]struct {
		record   Record
		position Position
		want     verdict
	}{
		"both before the first commit":     {ready(), Position{}, inStep},
		"at acked":                         {rest, Position{Lineage: lineage, Cut: cut}, inStep},
		"another cut":                      {rest, Position{Lineage: lineage, Cut: other}, apart},
		"no lineage any more":              {rest, Position{}, apart},
		"a lineage from nowhere":           {ready(), Position{Lineage: lineage, Cut: cut}, apart},
		"files changed":                    {rest, Position{Lineage: lineage, Cut: cut, Disks: []PositionDisk{{ID: "root", Doubt: "size"}}}, apart},
		"committing, at outstanding":       {committing, Position{Lineage: "aa", Cut: "bb", CommittedTransfer: other}, adopt},
		"committing, still open":           {committing, Position{Lineage: lineage, Cut: cut, Transfer: other}, commitAgain},
		"committing, transfer gone":        {committing, Position{Lineage: lineage, Cut: cut}, apart},
		"committing, another transfer":     {committing, Position{Lineage: lineage, Cut: cut, Transfer: cut}, apart},
		"committing, lineage of a third":   {committing, Position{Lineage: other, Cut: "bb", Transfer: other}, apart},
		"committing, half of what we sent": {committing, Position{Lineage: "aa", Cut: cut}, apart},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			got, _, evidence := judge(test.record, test.position)
			if got != test.want || (got == apart) != (evidence != "") {
				t.Fatalf("got %v with evidence %q, want %v", got, evidence, test.want)
			}
		})
	}
}

func TestHealthReasons(t *testing.T) {
	replicating := reach(t, ready(), copied...)
	full := Live{Trouble: failure.New(failure.Exhausted, failure.ReasonStorageFull, "full"), TroubleSince: noon}
	away := Live{Trouble: failure.New(failure.Unreachable, failure.ReasonReplicaUnreachable, "away"), TroubleSince: noon}
	wrong := Live{Trouble: failure.New(failure.Precondition, failure.ReasonWrongRole, "a primary").Try("Set it."), looked: true}
	stale := Live{Trouble: failure.New(failure.Precondition, failure.ReasonStaleTerm, "term 1 is behind"), looked: true}
	running := reach(t, replicating, "start resync", "begin")
	cases := map[string]struct {
		record Record
		live   Live
		at     time.Time
		want   replication.Health
		code   string
	}{
		"not prepared":         {Record{Name: "x"}, Live{}, noon, replication.HealthCritical, CodeNotPrepared},
		"no copy yet":          {ready(), Live{}, noon, replication.HealthWarning, CodeInitialPending},
		"at rest":              {replicating, Live{looked: true}, noon, replication.HealthNormal, CodeVerifiedUntracked},
		"not looked at":        {replicating, Live{}, noon, replication.HealthWarning, CodeNotLookedAt},
		"suspended":            {reach(t, replicating, "suspend"), Live{}, noon, replication.HealthWarning, CodeSuspended},
		"resync required":      {reach(t, replicating, "modified"), Live{}, noon, replication.HealthCritical, CodeResyncRequired},
		"resynchronizing":      {running, Live{}, noon, replication.HealthWarning, CodeResyncRunning},
		"replica full":         {running, full, noon, replication.HealthCritical, failure.ReasonStorageFull},
		"away for a minute":    {running, away, noon.Add(time.Minute), replication.HealthWarning, failure.ReasonReplicaUnreachable},
		"away for two hours":   {running, away, noon.Add(2 * time.Hour), replication.HealthCritical, failure.ReasonReplicaUnreachable},
		"another agent there":  {replicating, wrong, noon, replication.HealthCritical, failure.ReasonWrongRole},
		"another host owns it": {replicating, stale, noon, replication.HealthCritical, failure.ReasonStaleTerm},
		"the last one failed":  {reach(t, running, "fail"), Live{}, noon, replication.HealthCritical, failure.ReasonImageMissing},
		"void and suspended":   {reach(t, running, "fail", "suspend"), Live{}, noon, replication.HealthCritical, CodeResyncRequired},
		"waiting for its turn": {running, Live{Waiting: true}, noon, replication.HealthWarning, CodeWaiting},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			reasons := health(test.record, test.live, test.at)
			if got := replication.Worst(reasons); got != test.want {
				t.Errorf("health %v, want %v", got, test.want)
			}
			at := slices.IndexFunc(reasons, func(r replication.HealthReason) bool { return r.Code == test.code && r.Message != "" })
			if at < 0 {
				t.Fatalf("no reason %s in %+v", test.code, reasons)
			}
			operators := []string{failure.ReasonWrongRole, failure.ReasonStaleTerm}
			if slices.Contains(operators, test.code) && reasons[at].Remedy == "" {
				t.Errorf("%s has no remedy", test.code)
			}
		})
	}
}

func TestAShortWaitIsNotToldAsNone(t *testing.T) {
	away := failure.New(failure.Unreachable, failure.ReasonReplicaUnreachable, "the replica is away")
	running := reach(t, ready(), "start initial", "begin")
	for wait, want := range map[time.Duration]string{
		time.Nanosecond: "1s", 300 * time.Millisecond: "1s", time.Second: "1s", 1200 * time.Millisecond: "2s", time.Minute: "1m0s",
	} {
		_, events, err := running.interrupted(away, wait, nil)
		if err != nil || len(events) != 1 {
			t.Fatalf("%d events, %v", len(events), err)
		}
		if told := events[0]; !strings.HasSuffix(told.Message, "It is tried again in "+want+".") || told.Details["retry_in"] != want {
			t.Errorf("a wait of %v: %s (%s)", wait, told.Message, told.Details["retry_in"])
		}
	}
}

// TestTheResyncTellsOfItself asks for the events that belong to the resync beside those of the replication.
func TestTheResyncTellsOfItself(t *testing.T) {
	away := failure.New(failure.Unreachable, failure.ReasonReplicaUnreachable, "the replica is away")
	running := reach(t, ready(), append(slices.Clone(copied), "start resync", "begin")...)
	types := func(r Record, apply func(Record) (Record, []event.Event, error)) (Record, []string) {
		next, events, err := apply(r)
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		for _, e := range events {
			found = append(found, e.Type)
			if strings.HasPrefix(e.Type, "resync.") && e.Details["resync"] != string(r.Resync.ID) {
				t.Errorf("%s does not name its resync", e.Type)
			}
		}
		return next, found
	}
	suspend := func(r Record) (Record, []event.Event, error) { return r.suspend(noon, "", nil) }
	doubt := func(r Record) (Record, []event.Event, error) { return r.interrupted(away, time.Second, nil) }
	resting, told := types(running, suspend)
	if !slices.Equal(told, []string{event.TypeSuspended, event.TypeResyncSuspended}) {
		t.Errorf("a suspension: %v", told)
	}
	if _, told = types(resting, Record.resume); !slices.Equal(told, []string{event.TypeResumed, event.TypeResyncResumed}) {
		t.Errorf("its end: %v", told)
	}
	if _, told = types(reach(t, ready(), copied...), suspend); !slices.Equal(told, []string{event.TypeSuspended}) {
		t.Errorf("a suspension without a resync: %v", told)
	}
	doubtful, told := types(reach(t, running, "commit"), doubt)
	if !slices.Equal(told, []string{event.TypeResyncInterrupted, event.TypeCommitInDoubt}) {
		t.Errorf("a commit without an answer: %v", told)
	}
	if _, told = types(doubtful, doubt); len(told) != 0 {
		t.Errorf("the same again: %v", told)
	}
}
