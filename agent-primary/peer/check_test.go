package peer_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"vmreplica/agent-primary/peer"
	"vmreplica/internal/failure"
)

func TestConnectionTest(t *testing.T) {
	all := []string{"dns", "tcp", "tls", "role", "entry", "version", "space", "clock"}
	noEntry, otherVersion, full, late := goodHello(), goodHello(), goodHello(), goodHello()
	noEntry.Authorization, otherVersion.Version, full.FreeBytes = "", 2, 0
	late.Time = timestamppb.New(time.Now().Add(-time.Hour))
	cases := map[string]struct {
		role   string
		served *replica
		failed string
	}{
		"all is well":          {"replica", &replica{hello: goodHello()}, ""},
		"it is a primary":      {"primary", &replica{hello: goodHello()}, "role"},
		"no entry":             {"replica", &replica{hello: noEntry}, "entry"},
		"refused":              {"replica", &replica{helloErr: failure.New(failure.Denied, failure.ReasonNotAuthorized, "no")}, "entry"},
		"another version":      {"replica", &replica{hello: otherVersion}, "version"},
		"no space":             {"replica", &replica{hello: full}, "space"},
		"a clock an hour late": {"replica", &replica{hello: late}, "clock"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			pair := newPair(t, test.role, test.served)
			checks, err := peer.Test(t.Context(), pair.config, pair.address)
			if err != nil {
				t.Fatal(err)
			}
			for i, check := range checks {
				last := i == len(checks)-1
				if check.Name != all[i] || check.Message == "" || check.Passed == (last && test.failed != "") {
					t.Fatalf("check %d is %+v", i, check)
				}
				if !check.Passed && (check.Name != test.failed || check.Remedy == "" && check.Name != "version") {
					t.Fatalf("failed at %+v, want %s", check, test.failed)
				}
			}
			if test.failed == "" && len(checks) != len(all) {
				t.Fatalf("%d checks", len(checks))
			}
		})
	}
}

func TestConnectionTestFailsEarly(t *testing.T) {
	pair := newPair(t, "replica", &replica{hello: goodHello()})
	stranger := newPair(t, "replica", &replica{hello: goodHello()}) // its authority is another one
	cases := map[string]struct{ address, failed string }{
		"no such name":      {"no-such-host.invalid:7443", "dns"},
		"nobody listens":    {"localhost:1", "tcp"},
		"another authority": {stranger.address, "tls"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			checks, err := peer.Test(t.Context(), pair.config, test.address)
			if err != nil {
				t.Fatal(err)
			}
			last := checks[len(checks)-1]
			if last.Name != test.failed || last.Passed || last.Remedy == "" {
				t.Fatalf("got %+v", last)
			}
		})
	}
	if _, err := peer.Test(t.Context(), pair.config, "nowhere"); failure.Find(err).Class != failure.Invalid {
		t.Fatalf("an address without a port gave %v", err)
	}
}
