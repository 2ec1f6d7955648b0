package layers_test

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Limits of length, in lines.
const (
	maxFile     = 400
	maxTestFile = 600
	maxFunction = 70
)

// reserved are functions with few users, each with the reason.
var reserved = []struct {
	functions []string
	users     []string
	reason    string
}{
	{
		functions: []string{
			"os.Rename", "(*os.File).Sync", "(*os.Root).Rename", "os.Link", "syscall.Fsync", "syscall.Fdatasync", "syscall.Rename",
			unix + ".Fsync", unix + ".Fdatasync", unix + ".Syncfs", unix + ".SyncFileRange",
			unix + ".Rename", unix + ".Renameat", unix + ".Renameat2",
		},
		users:  []string{"internal/durable/..."},
		reason: "internal/durable owns what is durable, and the crash recorder sees only what goes through it",
	},
	{
		functions: []string{"os.Exit", "log.Fatal", "log.Fatalf", "log.Fatalln"},
		users:     []string{"agent-primary", "agent-replica", "cmd/vmreplica"},
		reason:    "only a main ends the process",
	},
}

const unix = "golang.org/x/sys/unix"

// source is one package, parsed and type-checked.
type source struct {
	path  string
	set   *token.FileSet
	files []*ast.File
	info  *types.Info
}

// complaints are the rules that a package of the product breaks, as sentences.
func (s source) complaints() []string {
	var found []string
	documented := false
	for _, file := range s.files {
		if ast.IsGenerated(file) {
			return nil
		}
		documented = documented || file.Doc.Text() != ""
		found = append(found, s.lengths(file)...)
		found = append(found, s.calls(file)...)
	}
	if !documented {
		found = append(found, s.path+" has no package comment")
	}
	return found
}

func (s source) lengths(file *ast.File) []string {
	var found []string
	if n := lines(s.set, file.FileStart, file.FileEnd); n > maxFile {
		found = append(found, fmt.Sprintf("%s has %d lines, at most %d are allowed", s.position(file.Package), n, maxFile))
	}
	for _, declaration := range file.Decls {
		function, is := declaration.(*ast.FuncDecl)
		if !is {
			continue
		}
		if function.Name.Name == "init" && function.Recv == nil {
			found = append(found, s.position(function.Pos())+" init: what runs before main cannot be ordered or tested")
		}
		if n := lines(s.set, function.Pos(), function.End()); n > maxFunction {
			found = append(found, fmt.Sprintf("%s %s has %d lines, at most %d are allowed",
				s.position(function.Pos()), function.Name.Name, n, maxFunction))
		}
	}
	return found
}

// calls are the uses of functions that the package must not use. Suites for tests, whose names end in test, may
// panic: some show what a panic does.
func (s source) calls(file *ast.File) []string {
	var found []string
	ast.Inspect(file, func(node ast.Node) bool {
		name, is := node.(*ast.Ident)
		if !is {
			return true
		}
		switch used := s.info.Uses[name].(type) {
		case *types.Builtin:
			if used.Name() == "panic" && !strings.HasSuffix(s.path, "test") {
				found = append(found, s.position(name.Pos())+" panic: return a failure")
			}
		case *types.Func:
			if reason := misused(s.path, used.FullName()); reason != "" {
				found = append(found, fmt.Sprintf("%s %s: %s", s.position(name.Pos()), used.FullName(), reason))
			}
		}
		return true
	})
	return found
}

// misused says why the package at path may not use a function; empty when it may.
func misused(path, function string) string {
	for _, r := range reserved {
		if slices.Contains(r.functions, function) && !withinAny(path, r.users) {
			return r.reason
		}
	}
	return ""
}

func (s source) position(at token.Pos) string {
	position := s.set.Position(at)
	return fmt.Sprintf("%s/%s:%d:", s.path, filepath.Base(position.Filename), position.Line)
}

func lines(set *token.FileSet, from, to token.Pos) int {
	return set.Position(to).Line - set.Position(from).Line + 1
}

// checker type-checks packages against what the compiler has already built of those they import.
type checker struct {
	set     *token.FileSet
	imports types.Importer
}

func newChecker(packages []listed) checker {
	exports := map[string]string{}
	for _, p := range packages {
		exports[p.ImportPath] = p.Export
	}
	set := token.NewFileSet()
	return checker{set, importer.ForCompiler(set, "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(exports[path])
	})}
}

func (c checker) check(path string, files []*ast.File) (source, error) {
	s := source{path: path, set: c.set, files: files, info: &types.Info{Uses: map[*ast.Ident]types.Object{}}}
	config := types.Config{Importer: c.imports}
	_, err := config.Check(path, c.set, files, s.info)
	return s, err
}

func TestHouseRules(t *testing.T) {
	packages := goList(t, "linux", "-export", "./...")
	c := newChecker(packages)
	for _, p := range packages {
		path, isOurs := inModule(p.ImportPath)
		if !isOurs || within(path, "test/...") {
			continue
		}
		var files []*ast.File
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(c.set, filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
		s, err := c.check(path, files)
		if err != nil {
			t.Fatal(err)
		}
		for _, complaint := range s.complaints() {
			t.Error(complaint)
		}
	}
}

func TestTestFilesAreShort(t *testing.T) {
	for _, p := range goList(t, "linux", "./...") {
		if !p.ours() {
			continue
		}
		for _, name := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			content, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(content), "\n"); n > maxTestFile {
				t.Errorf("%s/%s has %d lines, at most %d are allowed", p.ImportPath, name, n, maxTestFile)
			}
		}
	}
}

func TestEveryHouseRuleFindsItsViolation(t *testing.T) {
	c := newChecker(goList(t, "linux", "-export", "os", unix))
	const head = "// Package made is made up.\npackage made\n"
	for name, example := range map[string]struct {
		path, text, says string
	}{
		"a rename":            {"internal/event", head + `import "os"; func f() { os.Rename("a", "b") }`, "os.Rename"},
		"a sync":              {"internal/event", head + `import "os"; func f(x *os.File) { x.Sync() }`, "(*os.File).Sync"},
		"a sync by its value": {"internal/event", head + `import "os"; func f(x *os.File) func() error { return x.Sync }`, "(*os.File).Sync"},
		"a promoted sync":     {"internal/event", head + `import "os"; func f(x struct{ *os.File }) { x.Sync() }`, "(*os.File).Sync"},
		"a fsync":             {"agent-replica/merge", head + `import "golang.org/x/sys/unix"; func f() { unix.Fsync(1) }`, "unix.Fsync"},
		"an exit":             {"agent-replica/merge", head + `import "os"; func f() { os.Exit(1) }`, "os.Exit"},
		"a panic":             {"blockdiff", head + `func f() { panic("x") }`, "panic"},
		"an init":             {"blockdiff", head + `func init() {}`, "init"},
		"a long function":     {"blockdiff", head + "func f() {" + strings.Repeat("\n", maxFunction) + "}", "has 71 lines"},
		"a long file":         {"blockdiff", head + strings.Repeat("\n", maxFile), "lines"},
		"no comment":          {"blockdiff", "package made", "no package comment"},

		"a suite's panic":      {"internal/state/statetest", head + `func f() { panic("x") }`, ""},
		"our own sync":         {"agent-replica/merge", head + `type s struct{}; func (s) Sync() error { return nil }; func f() { s{}.Sync() }`, ""},
		"durable's rename":     {"internal/durable", head + `import "os"; func f() { os.Rename("a", "b") }`, ""},
		"a main's exit":        {"agent-primary", head + `import "os"; func f() { os.Exit(1) }`, ""},
		"a method called init": {"blockdiff", head + `type s struct{}; func (s) init() {}`, ""},
		"a shadowed panic":     {"blockdiff", head + `func f(panic func()) { panic() }`, ""},
		"generated code":       {"proto/vmreplica/v1", "// Code generated by x. DO NOT EDIT.\npackage made; func init() {}", ""},
	} {
		file, err := parser.ParseFile(c.set, "made.go", example.text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		s, err := c.check(example.path, []*ast.File{file})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := s.complaints()
		if example.says == "" && len(got) > 0 || example.says != "" && (len(got) != 1 || !strings.Contains(got[0], example.says)) {
			t.Errorf("%s: found %q, want %q", name, got, example.says)
		}
	}
}
