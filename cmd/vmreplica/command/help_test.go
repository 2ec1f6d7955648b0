package command_test

import (
	"strings"
	"testing"
)

// verbs are all of them, as an operator types them.
var verbs = []string{
	"pki", "pki init", "pki issue", "authorize", "authorizations", "deauthorize", "test-connection",
	"agent", "agent get", "agent set", "enable", "start-initial", "resync", "cancel-resync", "verify", "suspend", "resume",
	"set", "reset-statistics", "remove", "get", "describe", "measure", "resyncs", "events", "check", "disk", "disk info", "disk check", "disk map",
	"attach-info", "hrl", "hrl info", "recovery-points", "export", "failover", "version", "completion",
}

func TestEveryVerbTeaches(t *testing.T) {
	for _, verb := range verbs {
		got := run(t.Context(), nil, append(strings.Fields(verb), "--help")...)
		_, example, found := strings.Cut(got.out, "Examples:\n")
		if got.code != 0 || !found || !strings.Contains(example, "vmreplica "+verb) && !strings.Contains(example, verb) {
			t.Errorf("%s --help: code %d, no example of it in\n%s%s", verb, got.code, got.out, got.err)
		}
		what, rest, _ := strings.Cut(got.out, "\n\n")
		if !strings.HasSuffix(what, ".") || strings.Contains(what, "\n") || !strings.HasPrefix(rest, "Use ") {
			t.Errorf("%s --help begins with %q and %.20q: want one sentence of what, then when to use it", verb, what, rest)
		}
	}
}

func TestTheProgramListsEveryVerb(t *testing.T) {
	for _, args := range [][]string{{}, {"--help"}, {"help"}} {
		got := run(t.Context(), nil, args...)
		for _, verb := range verbs {
			if !strings.Contains(verb, " ") && !strings.Contains(got.out, "\n  "+verb+" ") {
				t.Errorf("%v does not list %s", args, verb)
			}
		}
	}
}

func TestHelpOfSuspendAndResumeSaysThatTheMachineRunsOn(t *testing.T) {
	for verb, cmdlet := range map[string]string{"suspend": "Suspend-VMReplication", "resume": "Resume-VMReplication"} {
		got := run(t.Context(), nil, verb, "--help")
		if !strings.HasPrefix(got.out, "Replication of the VM is "+verb[:6]) || !strings.Contains(got.out, "; the machine itself runs on.\n") ||
			!strings.Contains(got.out, cmdlet) {
			t.Errorf("%s", got.out)
		}
	}
}

func TestUsage(t *testing.T) {
	for name, args := range map[string][]string{
		"an unknown verb":             {"frobnicate"},
		"an unknown verb below":       {"pki", "frobnicate"},
		"an unknown flag":             {"get", "--frobnicate"},
		"no VM":                       {"resync"},
		"two VMs":                     {"resync", "a", "b"},
		"an impossible VM":            {"resync", "../etc"},
		"an unknown format":           {"get", "-o", "xml"},
		"no certificate":              {"get"},
		"no disk":                     {"enable", "web01", "--replica", "r:7443"},
		"no replica":                  {"enable", "web01", "--disk", "/x.img"},
		"nothing to set":              {"set", "web01"},
		"no role":                     {"pki", "issue", "--dir", "x", "--name", "y"},
		"an unknown shell":            {"completion", "tcsh"},
		"an unknown form":             {"attach-info", "web01", "--form", "xen"},
		"no file to export to":        {"export", "web01"},
		"a failover unasked":          {"failover", "web01"},
		"asked and not":               {"failover", "web01", "--yes", "--dry-run"},
		"no log":                      {"hrl", "info"},
		"measures of two":             {"measure", "a", "b"},
		"points of none":              {"recovery-points"},
		"an update of a subdirectory": {"authorize", "p1", "--update", "--storage", "x"},
	} {
		got := run(t.Context(), nil, args...)
		if got.code != 2 || got.out != "" || !strings.HasPrefix(got.err, "error: ") || !strings.Contains(got.err, "\n  ") {
			t.Errorf("%s: code %d\n%s%s", name, got.code, got.out, got.err)
		}
	}
	run(t.Context(), nil, "check", "a", "b").expect(t, 3, "VMREPLICA UNKNOWN - ", "")
}

func TestCompletionAndVersion(t *testing.T) {
	for shell, holds := range map[string]string{"bash": "__start_vmreplica", "zsh": "#compdef vmreplica", "fish": "complete -c vmreplica", "powershell": "Register-ArgumentCompleter"} {
		run(t.Context(), nil, "completion", shell).expect(t, 0, holds, "")
	}
	run(t.Context(), nil, "__complete", "get", "-o", "").expect(t, 0, "table\nwide\njson\nyaml\n", "")
	run(t.Context(), nil, "__complete", "pki", "issue", "--role", "").expect(t, 0, "primary\nreplica\noperator\nviewer\n", "")
	run(t.Context(), nil, "version").expect(t, 0, "vmreplica ", "")
	run(t.Context(), nil, "version", "-o", "json").expect(t, 0, `"platform": "`, "")
}

func TestPKI(t *testing.T) {
	directory := t.TempDir() + "/p k i"
	run(t.Context(), nil, "pki", "issue", "--dir", directory, "--role", "operator", "--name", "alice").expect(t, 3, "", "vmreplica pki init")
	run(t.Context(), nil, "pki", "init", "--dir", directory, "--trust-domain", "example.com").
		expect(t, 0, "Next: vmreplica pki issue --dir '"+directory+"' ", "")
	run(t.Context(), nil, "pki", "init", "--dir", directory).expect(t, 4, "", "ALREADY_EXISTS")
	run(t.Context(), nil, "pki", "issue", "--dir", directory, "--role", "replica", "--name", "r1").expect(t, 2, "", "--host HOST")
	issue := []string{"pki", "issue", "--dir", directory, "--role", "replica", "--name", "r1", "--host", "replica.example"}
	run(t.Context(), nil, issue...).expect(t, 0, "Issued spiffe://example.com/vmreplica/replica/r1", "")
	run(t.Context(), nil, append(issue, "-o", "json")...).expect(t, 0, `"renewed": true`, "")
}
