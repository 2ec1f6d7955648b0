package daemon

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"

	"go.yaml.in/yaml/v3"

	"vmreplica/internal/failure"
)

// maxConfigFile bounds the settings file, in bytes.
const maxConfigFile = 1 << 20

// Configuration is an agent's settings: a pointer to a struct with yaml tags that embeds Common. What is in it
// before Load is the default.
type Configuration interface {
	// Register binds each setting to a flag of the same name as its yaml key; the default of the flag is what
	// the setting holds.
	Register(flags *flag.FlagSet)
	// Check says what is missing or cannot be.
	Check() error
	// Shared is the embedded Common.
	Shared() *Common
}

// Common is what both agents are told.
type Common struct {
	// Listen is the address of the gRPC server, host:port; an empty host means all addresses.
	Listen string `yaml:"listen"`
	// TLSDir holds tls.crt, tls.key and ca.crt; they are read again when they change.
	TLSDir string `yaml:"tls-dir"`
	// StateDir holds the agent's own records.
	StateDir string `yaml:"state-dir"`
	// MetricsListen is the address of /metrics, /healthz and /readyz, host:port; empty means none.
	MetricsListen string `yaml:"metrics-listen"`
	// LogFormat is text or json, LogLevel debug, info, warn or error.
	LogFormat string `yaml:"log-format"`
	LogLevel  string `yaml:"log-level"`
}

// Defaults are the common settings of an agent that listens at listen when nothing else is said.
func Defaults(listen string) Common {
	return Common{Listen: listen, LogFormat: "text", LogLevel: "info"}
}

// Shared is the settings themselves.
func (c *Common) Shared() *Common { return c }

// Register binds the common settings.
func (c *Common) Register(flags *flag.FlagSet) {
	flags.StringVar(&c.Listen, "listen", c.Listen, "serve the API at `address`")
	flags.StringVar(&c.TLSDir, "tls-dir", c.TLSDir, "`directory` with tls.crt, tls.key and ca.crt")
	flags.StringVar(&c.StateDir, "state-dir", c.StateDir, "`directory` of the agent's own records")
	flags.StringVar(&c.MetricsListen, "metrics-listen", c.MetricsListen,
		"serve /metrics, /healthz and /readyz over plain HTTP at `address`")
	flags.StringVar(&c.LogFormat, "log-format", c.LogFormat, "`text` or json")
	flags.StringVar(&c.LogLevel, "log-level", c.LogLevel, "debug, `info`, warn or error")
}

// Check refuses what is missing or has no meaning.
func (c *Common) Check() error {
	for _, required := range []struct{ name, value string }{{"tls-dir", c.TLSDir}, {"state-dir", c.StateDir}} {
		if required.value == "" {
			return Missing(required.name)
		}
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return wrong("listen", c.Listen, "host:port")
	}
	if c.MetricsListen != "" {
		if _, _, err := net.SplitHostPort(c.MetricsListen); err != nil {
			return wrong("metrics-listen", c.MetricsListen, "host:port")
		}
	}
	_, err := NewLogger(io.Discard, c.LogFormat, c.LogLevel)
	return err
}

// Missing is the failure of a setting that must be given.
func Missing(name string) error {
	return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "--%s is required", name).
		Try("Give the flag, or the key %s in the file of --config.", name)
}

func wrong(name, value, want string) error {
	return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "--%s %q is not %s", name, value, want)
}

// errVersion asks for the version instead of a run.
var errVersion = errors.New("version asked for")

// load fills config from args and the file they name: file over default, flag over file. It answers
// flag.ErrHelp or errVersion when that is what args ask for.
func load(program Program, args []string, usage io.Writer) error {
	file, err := parse(program, args, usage)
	if err != nil {
		return err
	}
	if file != "" {
		if err := readFile(file, program.Config); err != nil {
			return err
		}
		if _, err := parse(program, args, usage); err != nil {
			return err
		}
	}
	return program.Config.Check()
}

// parse sets what args give and answers the name of the settings file.
func parse(program Program, args []string, usage io.Writer) (string, error) {
	flags := flag.NewFlagSet(program.Name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	var file string
	var version bool
	flags.StringVar(&file, "config", "", "read settings from a YAML `file`; a flag wins over it")
	flags.BoolVar(&version, "version", false, "print the version and exit")
	program.Config.Register(flags)
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		printUsage(usage, program, flags)
		return "", err
	case err != nil:
		return "", failure.New(failure.Invalid, failure.ReasonInvalidArgument, "%w", err).
			Try("See %s --help.", program.Name)
	case version:
		return "", errVersion
	case flags.NArg() > 0:
		return "", failure.New(failure.Invalid, failure.ReasonInvalidArgument, "argument %q is not expected", flags.Arg(0)).
			Try("See %s --help.", program.Name)
	}
	return file, nil
}

func readFile(name string, into Configuration) error {
	content, err := readBounded(name)
	if err != nil {
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "settings file: %w", err)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	decoder.KnownFields(true)
	if err := decoder.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "settings file %s: %w", name, err).
			Try("The file holds settings by the names of their flags.")
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "settings file %s holds more than one document", name)
	}
	return nil
}

func readBounded(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxConfigFile+1))
	if err == nil && len(content) > maxConfigFile {
		err = fmt.Errorf("%s is longer than %d bytes", name, maxConfigFile)
	}
	return content, err
}
