package e2e_test

import (
	"testing"

	"vmreplica/test/guest"
)

// TestTheCutOracleFindsFaults leaves one step out of the agents each time, under a load that overwrites what it wrote, and
// none in the first row: what the replica holds after a cycle is then what the primary was at the cut, or is not.
func TestTheCutOracleFindsFaults(t *testing.T) {
	t.Parallel()
	for _, control := range []struct {
		name, faults string
		// resync has each cycle preceded by a forced resync.
		resync bool
		// cycles is how often the replica must be exact; 0 where a fault must be found.
		cycles int
	}{
		{name: "sound", faults: "late-writes", resync: true, cycles: 3},
		{name: "begin", faults: "begin-without-drain,late-writes", resync: true},
		{name: "keep", faults: "no-copy-before-write"},
		{name: "drop", faults: "drop-delta"},
	} {
		t.Run(control.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, guestDisk, control.faults, "root.img")
			guest.StartLoad(t, m.exported()[0])
			m.primary.do("start-initial", vm, "--wait")
			const most = 8
			for i := range max(control.cycles, most) {
				if i == control.cycles && i > 0 {
					return
				}
				if control.resync {
					m.primary.do("resync", vm, "--force", "--wait")
				}
				m.cycled()
				switch exact := m.exact(); {
				case !exact && control.cycles > 0:
					t.Fatalf("cycle %d: the replica is not what the primary was", i)
				case !exact:
					return
				}
			}
			t.Error("the replica was what the primary was each time")
		})
	}
}

// TestTheOracleFindsMarksThatWereClearedEarly has a cycle killed before its commit, with the fault and without: what it had
// sent is marked then, and sent again.
func TestTheOracleFindsMarksThatWereClearedEarly(t *testing.T) {
	t.Parallel()
	for name, control := range map[string]struct {
		faults string
		exact  bool
	}{
		"sound": {"", true},
		"clear": {"clear-on-receipt", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, 32*mib, control.faults, "root.img")
			m.primary.do("start-initial", vm, "--wait")
			m.write("root.img", 0, 4*mib, 1)
			m.killedAt(control.faults + ",delta-before-commit")
			if differing, clean := m.unmarked(); differing == 0 || (clean == 0) != control.exact {
				t.Errorf("%d blocks differ, %d of them are clean", differing, clean)
			}
			m.misbehave(control.faults)
			m.primary.start()
			m.write("root.img", 16*mib, 4096, 2)
			// With the fault nothing is pending before anything has committed.
			eventually(t, "a cycle", func() bool { return m.status().GetLastCycle() != nil })
			m.sent()
			if exact := m.exact(); exact != control.exact {
				t.Errorf("the replica is what the primary was: %v", exact)
			}
		})
	}
}
