package daemon_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"vmreplica/internal/daemon"
)

// settings are those of an agent made up for the tests.
type settings struct {
	daemon.Common `yaml:",inline"`
	ImageDirs     []string `yaml:"image-dir"`
}

func (s *settings) Register(flags *flag.FlagSet) {
	s.Common.Register(flags)
	daemon.List(flags, &s.ImageDirs, "image-dir", "`directory` with images")
}

func failAtOnce(context.Context, *daemon.Host) error { return errors.New("no such disk") }

func newSettings() *settings { return &settings{Common: daemon.Defaults(":7443")} }

// loaded runs Main far enough to load settings, and answers them with the exit code and output.
func loaded(t *testing.T, file string, args ...string) (*settings, int, string) {
	t.Helper()
	if file != "" {
		name := filepath.Join(t.TempDir(), "agent.yaml")
		if err := os.WriteFile(name, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append([]string{"--config", name}, args...)
	}
	config := newSettings()
	var out bytes.Buffer
	program := daemon.Program{Name: "agent-test", Purpose: "a test", Config: config, Run: failAtOnce}
	code := daemon.Main(program, args, &out, &out)
	return config, code, out.String()
}

const full = `
listen: 127.0.0.1:1
tls-dir: /file/tls
state-dir: /file/state
log-level: error
image-dir: [/file/a, /file/b]
`

func TestFlagWinsOverFileWinsOverDefault(t *testing.T) {
	config, code, out := loaded(t, full, "--tls-dir", "/flag/tls", "--image-dir=/flag/c", "-image-dir", "/flag/d")
	if code != 1 {
		t.Fatalf("exit code %d: %s", code, out)
	}
	want := newSettings()
	want.Listen, want.TLSDir, want.StateDir, want.LogLevel = "127.0.0.1:1", "/flag/tls", "/file/state", "error"
	want.ImageDirs = []string{"/flag/c", "/flag/d"}
	if !reflect.DeepEqual(config, want) {
		t.Errorf("got %+v, want %+v", config, want)
	}
	config, _, _ = loaded(t, full)
	if want := []string{"/file/a", "/file/b"}; !reflect.DeepEqual(config.ImageDirs, want) {
		t.Errorf("without a flag the list is %v, want %v", config.ImageDirs, want)
	}
}

func TestWrongSettingsAreRefusedByName(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		args []string
		says string
	}{
		"an unknown key":       {full + "listn: x\n", nil, "listn"},
		"a key of wrong type":  {full + "tls-dir: [a]\n", nil, "line"},
		"a second document":    {full + "---\nlisten: x\n", nil, "more than one document"},
		"no such file":         {"", []string{"--config", "/nowhere/agent.yaml"}, "/nowhere/agent.yaml"},
		"an endless file":      {"", []string{"--config", "/dev/zero"}, "longer than"},
		"an unknown flag":      {full, []string{"--sped", "1"}, "sped"},
		"a stray argument":     {full, []string{"start"}, `"start"`},
		"no tls directory":     {"", []string{"--state-dir", "s"}, "--tls-dir"},
		"no state directory":   {"", []string{"--tls-dir", "s"}, "--state-dir"},
		"an address no port":   {full, []string{"--listen", "host"}, "--listen"},
		"a metrics address":    {full, []string{"--metrics-listen", "x"}, "--metrics-listen"},
		"an unknown format":    {full, []string{"--log-format", "xml"}, "--log-format"},
		"an unknown level":     {full, []string{"--log-level", "loud"}, "--log-level"},
		"a metrics port taken": {full, []string{"--metrics-listen", "203.0.113.1:1"}, "metrics"},
	} {
		t.Run(name, func(t *testing.T) {
			_, code, out := loaded(t, c.file, c.args...)
			if code != 2 && name != "a metrics port taken" || code == 0 || !strings.Contains(out, c.says) {
				t.Errorf("exit code %d, output %q, want one that says %q", code, out, c.says)
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	_, code, out := loaded(t, "", "--help")
	for _, want := range []string{"--listen address", "--image-dir directory", "repeatable", "(default :7443)", "--config"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("exit code %d, help without %q:\n%s", code, want, out)
		}
	}
	_, code, out = loaded(t, "", "--version")
	if code != 0 || !strings.HasPrefix(out, "agent-test ") {
		t.Errorf("exit code %d, version %q", code, out)
	}
}
