package relationship_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"vmreplica/agent-primary/relationship"
	"vmreplica/internal/replication"
)

// TestTheWordsAreDocumented walks every word that an operator may meet through docs/states.md.
func TestTheWordsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/states.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(page)
	want := []string{
		relationship.CodeResyncRequired, relationship.CodeResyncRunning, relationship.CodeInitialPending,
		relationship.CodeInitialRunning, relationship.CodeSuspended, relationship.CodeResyncFailed, relationship.CodeNotPrepared,
		relationship.CodeWaiting, relationship.CodeVerifiedUntracked, relationship.CodeNotLookedAt, relationship.CodeTracked,
		relationship.CodeNotSynchronized, relationship.CodeCyclesMissed, relationship.CodeChurn, relationship.CodeHRLNearLimit,
		relationship.CodeFailedOver, relationship.CodeExternalSnapshot, relationship.CodeMonitorUnknown,
	}
	for state := replication.ReadyForInitialReplication; state <= replication.FailedOver; state++ {
		want = append(want, "| "+state.String()+" |")
	}
	for activity := replication.Idle; activity <= replication.CatchingUp; activity++ {
		want = append(want, activity.String())
	}
	for cause := replication.CauseImageModified; cause <= replication.CauseTrackingLost; cause++ {
		want = append(want, "| "+cause.String()+" |")
	}
	for state := replication.ResyncScheduled; state <= replication.ResyncCatchingUp; state++ {
		want = append(want, state.String())
	}
	for _, word := range want {
		if !strings.Contains(text, word) {
			t.Errorf("docs/states.md does not hold %q", word)
		}
	}
	health := text[strings.Index(text, "| Critical |"):]
	health = health[:strings.Index(health, "\n")]
	for _, code := range relationship.Critical {
		if !strings.Contains(health, code) {
			t.Errorf("%s is Critical at once and the page does not say so", code)
		}
	}
	named := regexp.MustCompile(`[A-Z]{3,}(_[A-Z]+)+`).FindAllString(health, -1)
	if len(named) != len(relationship.Critical) {
		t.Errorf("the page calls %v Critical at once; they are %v", named, relationship.Critical)
	}
}
