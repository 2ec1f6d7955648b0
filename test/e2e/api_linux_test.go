package e2e_test

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// grpcurl calls an agent as tools of any language do, knowing only what reflection tells.
func grpcurl(t *testing.T, holder string, a *agent, args ...string) (string, error) {
	t.Helper()
	program, err := filepath.Abs("../../bin/tools/grpcurl")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath(program); err != nil {
		t.Fatalf("%v: make tools", err)
	}
	identity := holder
	if !filepath.IsAbs(identity) {
		identity = filepath.Join(shared, holder)
	}
	flags := []string{"-format-error", "-cacert", identity + "/ca.crt", "-cert", identity + "/tls.crt", "-key", identity + "/tls.key"}
	// grpcurl takes the data before the address and the method after it.
	if args[0] == "-d" {
		flags, args = append(flags, args[:2]...), args[2:]
	}
	call := exec.Command(program, append(append(flags, a.address), args...)...)
	var out bytes.Buffer
	call.Stdout, call.Stderr = &out, &out
	err = call.Run()
	return out.String(), err
}

// calls is grpcurl with a request, which must succeed.
func calls(t *testing.T, a *agent, method, request string) string {
	t.Helper()
	out, err := grpcurl(t, operatorName, a, "-d", request, method)
	if err != nil {
		t.Fatalf("%s %s: %v: %s", method, request, err, out)
	}
	return out
}

// refused is grpcurl with a request, which must fail with every text.
func refused(t *testing.T, holder string, a *agent, method, request string, texts ...string) {
	t.Helper()
	out, err := grpcurl(t, holder, a, "-d", request, method)
	if err == nil {
		t.Errorf("%s %s as %s was not refused: %s", method, request, holder, out)
	}
	for _, text := range texts {
		if !strings.Contains(strings.ReplaceAll(out, " ", ""), strings.ReplaceAll(text, " ", "")) {
			t.Errorf("%s %s as %s does not say %q: %s", method, request, holder, text, out)
		}
	}
}

const apiPackage = "vmreplica.v1."

func TestAPIByReflection(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for _, a := range []*agent{p.primary, p.replica} {
		list, err := grpcurl(t, viewerName, a, "list")
		if err != nil {
			t.Fatalf("%v: %s", err, list)
		}
		for _, service := range []string{"ReplicationService", "ResyncService", "AgentService", "EventService", "AuthorizationService"} {
			if !strings.Contains(list, apiPackage+service) {
				t.Errorf("%s: reflection does not list %s:\n%s", a.program, service, list)
			}
		}
		health, err := grpcurl(t, viewerName, a, "grpc.health.v1.Health/Check")
		if err != nil || !strings.Contains(health, "SERVING") {
			t.Errorf("%s: health: %v: %s", a.program, err, health)
		}
	}
	described, err := grpcurl(t, viewerName, p.primary, "describe", apiPackage+"Resync")
	if err != nil || !strings.Contains(described, "blocks_differing") && !strings.Contains(described, "message Resync") {
		t.Errorf("describe: %v: %s", err, described)
	}
}

func TestAPIRefusals(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	const start = apiPackage + "ResyncService/StartResync"
	refused(t, operatorName, p.primary, apiPackage+"ReplicationService/GetReplication", `{"name":"nobody"}`,
		`"code": 5`, "NOT_FOUND", "vmreplica")
	refused(t, operatorName, p.primary, start, `{"vm":"../x","kind":"RESYNC_KIND_RESYNC"}`, "INVALID_NAME")
	refused(t, operatorName, p.replica, start, `{"vm":"web01","kind":"RESYNC_KIND_RESYNC"}`, "WRONG_ROLE")
	refused(t, operatorName, p.primary, apiPackage+"AuthorizationService/ListAuthorizations", `{}`, "WRONG_ROLE")
	refused(t, viewerName, p.primary, start, `{"vm":"web01","kind":"RESYNC_KIND_RESYNC"}`, `"code": 7`)
	refused(t, viewerName, p.primary, apiPackage+"AgentService/UpdateAgent", `{}`, `"code": 7`)
	refused(t, primaryName, p.replica, apiPackage+"AuthorizationService/CreateAuthorization", `{}`, `"code": 7`)
	refused(t, operatorName, p.replica, apiPackage+"TransferService/Hello", `{}`, `"code": 7`)
}

func TestAPIRepeatedRequestIsTheSameResync(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.inStep(48*mib, 70)
	p.limit("8MiB/s")
	rewrite(t, p.image(), 1, 71)
	const start = apiPackage + "ResyncService/StartResync"
	const request = `{"vm":"web01","kind":"RESYNC_KIND_RESYNC","request_id":"order-17"}`
	id := func(out string) string {
		var r struct{ ID string }
		if err := json.Unmarshal([]byte(out), &r); err != nil || r.ID == "" {
			t.Fatalf("%v: %s", err, out)
		}
		return r.ID
	}
	first := id(calls(t, p.primary, start, request))
	if second := id(calls(t, p.primary, start, request)); second != first {
		t.Errorf("the same request is resync %s, then %s", first, second)
	}
	refused(t, operatorName, p.primary, start, strings.Replace(request, "order-17", "order-18", 1), `"code": 6`, "RESYNC_RUNNING", first)
	// Once more after a crash: what the agent answered is durable.
	p.primary.kill()
	p.primary.start()
	if third := id(calls(t, p.primary, start, request)); third != first {
		t.Errorf("the same request after a crash is resync %s, then %s", first, third)
	}
	p.limit("none")
	if done := p.ends(p.primary.services()); done.GetId() != first {
		t.Errorf("resync %s ended, not %s", done.GetId(), first)
	}
	if fourth := id(calls(t, p.primary, start, request)); fourth != first {
		t.Errorf("the same request after the end is resync %s, then %s", first, fourth)
	}
	equal(t, p.image(), p.base())
}

func TestWatchSurvivesTheAgent(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.inStep(64*mib, 72)
	p.limit("16MiB/s")
	rewrite(t, p.image(), 1, 73)
	waiting := command(operatorName, p.primary, "resync", vm, "--wait", "-o", "json")
	var out, said bytes.Buffer
	waiting.Stdout, waiting.Stderr = &out, &said
	if err := waiting.Start(); err != nil {
		t.Fatal(err)
	}
	s := p.primary.services()
	eventually(t, "something was sent", func() bool {
		r := s.newest(t.Context())
		return r.GetKind() == vmreplicav1.ResyncKind_RESYNC_KIND_RESYNC && r.GetDisks()[0].GetBytesDiffering() > 8*mib
	})
	p.primary.kill()
	p.primary.start()
	if err := waiting.Wait(); err != nil {
		t.Fatalf("%v: %s", err, said.String())
	}
	if done := decode(t, out.String(), &vmreplicav1.Resync{}); done.GetState() != vmreplicav1.ResyncState_RESYNC_STATE_DONE {
		t.Errorf("the watch ended with %v", done)
	}
	if !strings.Contains(said.String(), "connected again") {
		t.Errorf("nothing of the lost connection was said:\n%s", said.String())
	}
	equal(t, p.image(), p.base())
}
