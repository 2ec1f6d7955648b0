package layers_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// zone is one row of the table of arrows: the packages at path may import these of ours and no others. A path
// that ends in /... is a package and all below it.
type zone struct {
	path      string
	mayImport []string
}

// arrows are: main → front → rooms → {blockdiff, transport, internal}. The first zone that holds a package counts.
var arrows = []zone{
	{"proto/...", nil},
	{"blockdiff/...", nil},
	{"transport/...", []string{"proto/..."}},

	{"internal/api", []string{"internal/...", "proto/..."}},
	{"internal/...", []string{"internal/..."}},

	{"agent-primary", []string{"agent-primary/primary", "internal/..."}},
	{"agent-primary/primary", []string{"agent-primary/...", "blockdiff", "transport/...", "internal/...", "proto/..."}},
	{"agent-primary/peer", []string{"agent-primary/...", "blockdiff", "transport/...", "internal/...", "proto/..."}},
	{"agent-primary/...", []string{"agent-primary/...", "blockdiff", "transport/...", "internal/..."}},

	{"agent-replica", []string{"agent-replica/replica", "internal/..."}},
	{"agent-replica/replica", []string{"agent-replica/...", "blockdiff", "transport/...", "internal/...", "proto/..."}},
	{"agent-replica/receive", []string{"agent-replica/...", "blockdiff", "transport/...", "internal/...", "proto/..."}},
	{"agent-replica/...", []string{"agent-replica/...", "blockdiff", "transport/...", "internal/..."}},

	{"cmd/vmreplica/...", []string{"cmd/vmreplica/...", "transport/...", "internal/...", "proto/..."}},
	{"test/...", []string{"..."}},
}

// tops are imported by their own main alone, whatever the zone of the importer allows.
var tops = map[string]string{
	"agent-primary/primary": "agent-primary",
	"agent-replica/replica": "agent-replica",
}

// owned are libraries that few may import: the wire is for the edges, the database and the command line have one
// owner each.
var owned = []struct {
	library string
	owners  []string
}{
	{"google.golang.org/grpc", edges},
	{"google.golang.org/protobuf", edges},
	{"go.etcd.io/bbolt", []string{"internal/state/...", "test/..."}},
	{"github.com/spf13/cobra", []string{"cmd/vmreplica/...", "test/..."}},
	{"github.com/vbauerster/mpb/v8", []string{"cmd/vmreplica/...", "test/..."}},
}

// formats are the packages that each know one disk format. Only internal/disk/format tells one from another, so they
// are for internal/disk alone: everybody else passes the format's name on.
var formats = []string{"internal/disk/raw", "internal/disk/vhd", "internal/disk/vhdx", "internal/disk/qcow2"}

var edges = []string{
	"proto/...", "transport/...", "internal/api", "agent-primary/primary", "agent-primary/peer",
	"agent-replica/replica", "agent-replica/receive", "cmd/vmreplica/...", "test/...",
}

// within says whether a package, by its path in the module, lies in a zone.
func within(path, zone string) bool {
	if zone == "..." {
		return true
	}
	if tree, isTree := strings.CutSuffix(zone, "/..."); isTree {
		return path == tree || strings.HasPrefix(path, tree+"/")
	}
	return path == zone
}

func withinAny(path string, zones []string) bool {
	return slices.ContainsFunc(zones, func(z string) bool { return within(path, z) })
}

// inModule is the path of one of our packages within the module.
func inModule(importPath string) (string, bool) { return strings.CutPrefix(importPath, module+"/") }

// violations are the imports that no arrow allows, as sentences.
func violations(packages []listed) []string {
	var found []string
	for _, p := range packages {
		if !p.ours() {
			continue
		}
		path, below := inModule(p.ImportPath)
		at := slices.IndexFunc(arrows, func(z zone) bool { return below && within(path, z.path) })
		if at < 0 {
			found = append(found, p.ImportPath+" lies in no zone: give it a row in the table of arrows")
			continue
		}
		for _, imported := range p.Imports {
			if reason := forbidden(path, imported, arrows[at]); reason != "" {
				found = append(found, fmt.Sprintf("%s imports %s: %s", path, imported, reason))
			}
		}
		for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if crossed(path, imported) {
				found = append(found, fmt.Sprintf("%s imports %s: the agents never import each other", path, imported))
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// forbidden says why a package of a zone may not import another one; empty when it may.
func forbidden(path, imported string, of zone) string {
	target, isOurs := inModule(imported)
	if !isOurs {
		for _, o := range owned {
			if (imported == o.library || strings.HasPrefix(imported, o.library+"/")) && !withinAny(path, o.owners) {
				return fmt.Sprintf("%s is for %s", o.library, strings.Join(o.owners, ", "))
			}
		}
		return ""
	}
	if main, isTop := tops[target]; isTop && path != main && !within(path, "test/...") {
		return "a front is for its main alone"
	}
	if withinAny(target, formats) && !withinAny(path, []string{"internal/disk/...", "test/..."}) {
		return "only internal/disk/format knows which format a disk has"
	}
	if !withinAny(target, of.mayImport) {
		return fmt.Sprintf("%s may import only [%s]", of.path, strings.Join(of.mayImport, " "))
	}
	return ""
}

func crossed(path, imported string) bool {
	target, _ := inModule(imported)
	return within(path, "agent-primary/...") && within(target, "agent-replica/...") ||
		within(path, "agent-replica/...") && within(target, "agent-primary/...")
}

func TestEveryImportFollowsAnArrow(t *testing.T) {
	for _, goos := range []string{"linux", "windows"} {
		packages := goList(t, goos, "./...")
		if count := len(slices.DeleteFunc(slices.Clone(packages), func(p listed) bool { return !p.ours() })); count < 10 {
			t.Fatalf("%s: only %d packages of ours were listed", goos, count)
		}
		for _, violation := range violations(packages) {
			t.Errorf("%s: %s", goos, violation)
		}
	}
}

func TestEveryZoneOfTheTableIsReachable(t *testing.T) {
	for i, z := range arrows {
		path := strings.TrimSuffix(z.path, "/...")
		first := slices.IndexFunc(arrows, func(other zone) bool { return within(path, other.path) })
		if first != i && within(path+"/x", arrows[first].path) {
			t.Errorf("row %s can never count: %s comes before it", z.path, arrows[first].path)
		}
	}
}

// made is a package graph of one package.
func made(path string, imports ...string) []listed {
	return []listed{{ImportPath: module + "/" + path, Imports: imports}}
}

func TestForbiddenImportsAreFound(t *testing.T) {
	for name, graph := range map[string][]listed{
		"proto imports ours":           made("proto/vmreplica/v1", "vmreplica/internal/failure"),
		"blockdiff imports internal":   made("blockdiff", "vmreplica/internal/failure"),
		"transport imports internal":   made("transport", "vmreplica/internal/failure"),
		"transport imports blockdiff":  made("transport", "vmreplica/blockdiff"),
		"internal imports a room":      made("internal/event", "vmreplica/agent-primary/resync"),
		"internal imports transport":   made("internal/pki", "vmreplica/transport"),
		"internal imports proto":       made("internal/event", "vmreplica/proto/vmreplica/v1"),
		"main imports a room":          made("agent-primary", "vmreplica/agent-primary/resync"),
		"main imports proto":           made("agent-replica", "vmreplica/proto/vmreplica/v1"),
		"room imports proto":           made("agent-primary/resync", "vmreplica/proto/vmreplica/v1"),
		"room imports grpc":            made("agent-replica/merge", "google.golang.org/grpc/codes"),
		"room imports bbolt":           made("agent-replica/chain", "go.etcd.io/bbolt"),
		"room imports its front":       made("agent-primary/resync", "vmreplica/agent-primary/primary"),
		"receive imports its front":    made("agent-replica/receive", "vmreplica/agent-replica/replica"),
		"front imports the other side": made("agent-primary/primary", "vmreplica/agent-replica/chain"),
		"room imports the other side":  made("agent-replica/receive", "vmreplica/agent-primary/resync"),
		"room imports the tests":       made("agent-primary/resync", "vmreplica/test/e2e"),
		"command imports a room":       made("cmd/vmreplica/command", "vmreplica/agent-primary/schedule"),
		"agent imports cobra":          made("agent-primary/primary", "github.com/spf13/cobra"),
		"an agent knows a format":      made("agent-replica/storage", "vmreplica/internal/disk/vhdx"),
		"a command knows a format":     made("cmd/vmreplica/command", "vmreplica/internal/disk/qcow2"),
		"a server knows a format":      made("internal/nbd", "vmreplica/internal/disk/raw"),
		"a package without a zone":     made("util"),
		"a package at the root":        {{ImportPath: module}},
		"a test imports the other side": {{
			ImportPath: module + "/agent-primary/resync", TestImports: []string{"vmreplica/agent-replica/receive"},
		}},
		"an outer test imports the other side": {{
			ImportPath: module + "/agent-replica/chain", XTestImports: []string{"vmreplica/agent-primary/peer"},
		}},
	} {
		if got := violations(graph); len(got) != 1 {
			if len(got) != 2 || !strings.Contains(name, "other side") { // the arrow and the wall between the agents
				t.Errorf("%s: found %q", name, got)
			}
		}
	}
}

func TestAllowedImportsAreNotFound(t *testing.T) {
	for name, graph := range map[string][]listed{
		"main imports its front and the daemon": made("agent-primary", "vmreplica/agent-primary/primary", "vmreplica/internal/daemon"),
		"front imports rooms and proto":         made("agent-replica/replica", "vmreplica/agent-replica/chain", "vmreplica/proto/vmreplica/v1", "google.golang.org/grpc"),
		"room imports rooms and blockdiff":      made("agent-primary/relationship", "vmreplica/agent-primary/resync", "vmreplica/blockdiff", "os"),
		"an agent asks for any format":          made("agent-replica/storage", "vmreplica/internal/disk/format"),
		"the formats are told apart":            made("internal/disk/format", "vmreplica/internal/disk/vhd", "vmreplica/internal/disk/raw"),
		"peer imports proto":                    made("agent-primary/peer", "vmreplica/proto/vmreplica/v1"),
		"receive imports proto":                 made("agent-replica/receive", "vmreplica/proto/vmreplica/v1"),
		"a room's test imports proto": {{
			ImportPath: module + "/agent-primary/resync", XTestImports: []string{"vmreplica/proto/vmreplica/v1"},
		}},
		"tests import both agents": made("test/e2e", "vmreplica/agent-primary/primary", "vmreplica/agent-replica/replica"),
		"what is not ours":         {{ImportPath: "golang.org/x/sync/errgroup", Imports: []string{"context"}}},
		"a name that only begins so": {{
			ImportPath: module + "/agent-primary/peerage", Imports: []string{"vmreplica/blockdiff"},
		}},
	} {
		if got := violations(graph); len(got) != 0 {
			t.Errorf("%s: found %q", name, got)
		}
	}
}
