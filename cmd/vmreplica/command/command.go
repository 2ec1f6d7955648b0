package command

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"vmreplica/cmd/vmreplica/render"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// Environment variables that stand for flags.
const (
	serverVariable = "VMREPLICA_SERVER"
	tlsDirVariable = "VMREPLICA_TLS_DIR"
)

// defaultServer is where a primary listens unless told otherwise.
const defaultServer = "127.0.0.1:7442"

// Streams is what the program sees of its surroundings.
type Streams struct {
	// In is read only where a person is asked. Interactive says that one sits there: In and Err are a terminal.
	In          io.Reader
	Interactive bool
	// Out takes results; Err takes progress and errors.
	Out, Err io.Writer
	// Getenv reads the environment.
	Getenv func(string) string
	// Now is the present time, in the operator's zone.
	Now func() time.Time
}

// invocation is one run of the program.
type invocation struct {
	Streams
	server, tlsDir, output string
	printer                render.Printer
	// requestID goes with every attempt of the one thing that this invocation changes.
	requestID string
	// given says that the arguments were understood and a verb has begun.
	given bool
	// agent is the way to the asked agent; nil before it is needed.
	agent *link
}

// Run runs the program from its arguments, without its name, to its exit code. When ctx ends it stops waiting and
// answers 130; what an agent has begun goes on.
func Run(ctx context.Context, args []string, streams Streams) int {
	v := &invocation{Streams: streams, requestID: string(replication.NewID())}
	root := v.root()
	root.SetArgs(args)
	root.SetOut(streams.Out)
	root.SetErr(streams.Err)
	ran, err := root.ExecuteContextC(ctx)
	defer v.hangUp()
	return v.finish(ctx, ran, err)
}

// root is the program with all its verbs.
func (v *invocation) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "vmreplica",
		Short: "Keep replicas of virtual machines' disks on another host.",
		Long: `Keep replicas of virtual machines' disks on another host.

vmreplica talks to an agent: to the primary where a VM runs, or to the replica where the copy lives. Begin with
"pki init" and "pki issue" for the certificates, "authorize" on the replica, "enable" and "start-initial" on the
primary; later "get" shows how all VMs stand and "describe" tells everything about one.`,
		Example: `  export VMREPLICA_TLS_DIR=/etc/vmreplica/alice
  vmreplica get
  vmreplica --server replica.example:7443 authorizations`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		DisableAutoGenTag: true,
		PersistentPreRunE: v.prepare,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	flags := root.PersistentFlags()
	flags.StringVar(&v.server, "server", "", "agent to ask, `HOST:PORT` (default $"+serverVariable+" or "+defaultServer+")")
	flags.StringVar(&v.tlsDir, "tls-dir", "", "`DIR` with tls.crt, tls.key and ca.crt (default $"+tlsDirVariable+")")
	flags.StringVarP(&v.output, "output", "o", string(render.Table), "output `FORMAT`: table, wide, json or yaml")
	complete(root, "output", render.Formats...)
	root.AddGroup(groups...)
	for _, make := range verbs {
		root.AddCommand(make(v))
	}
	root.SetHelpCommandGroupID(groupProgram)
	return root
}

// The groups of verbs, as help lists them.
const (
	groupSetUp     = "set-up"
	groupReplicate = "replicate"
	groupLook      = "look"
	groupRecover   = "recover"
	groupProgram   = "program"
)

var groups = []*cobra.Group{
	{ID: groupSetUp, Title: "To set up:"},
	{ID: groupReplicate, Title: "To replicate:"},
	{ID: groupLook, Title: "To look:"},
	{ID: groupRecover, Title: "To recover, on a replica:"},
	{ID: groupProgram, Title: "The program itself:"},
}

// verbs are all of them, in the order in which help lists them.
var verbs = []func(*invocation) *cobra.Command{
	(*invocation).pki, (*invocation).authorize, (*invocation).authorizations, (*invocation).deauthorize,
	(*invocation).testConnection, (*invocation).agentVerb,
	(*invocation).enable, (*invocation).attachInfo, (*invocation).startInitial, (*invocation).resync, (*invocation).cancelResync,
	(*invocation).verify, (*invocation).suspend, (*invocation).resume, (*invocation).set,
	(*invocation).resetStatistics, (*invocation).remove,
	(*invocation).get, (*invocation).describe, (*invocation).measure, (*invocation).resyncs, (*invocation).events,
	(*invocation).check, (*invocation).disk, (*invocation).hrl,
	(*invocation).recoveryPoints, (*invocation).export, (*invocation).failover,
	(*invocation).version, (*invocation).completion,
}

// prepare reads what every verb shares.
func (v *invocation) prepare(*cobra.Command, []string) error {
	format, err := render.ParseFormat(v.output)
	if err != nil {
		return err
	}
	v.printer = render.Printer{Out: v.Out, Format: format, Now: v.Now}
	return nil
}

// local makes a verb's work of run, for verbs that ask no agent.
func (v *invocation) local(run func(args []string) error) func(*cobra.Command, []string) error {
	return func(_ *cobra.Command, args []string) error {
		v.given = true
		return run(args)
	}
}

// remote makes a verb's work of run, for verbs that ask the agent.
func (v *invocation) remote(run func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(command *cobra.Command, args []string) error {
		v.given = true
		if err := v.connect(); err != nil {
			return err
		}
		return run(command.Context(), args)
	}
}

// ofVM is remote for verbs whose one argument is a VM.
func (v *invocation) ofVM(run func(ctx context.Context, vm string) error) func(*cobra.Command, []string) error {
	return func(command *cobra.Command, args []string) error {
		v.given = true
		if err := replication.CheckName("VM", args[0]); err != nil {
			return err
		}
		return v.remote(func(ctx context.Context, args []string) error { return run(ctx, args[0]) })(command, args)
	}
}

// showHelp is what a verb does that only has others below it.
func showHelp(command *cobra.Command, _ []string) error { return command.Help() }

// complete offers a flag's values to the shell.
func complete(command *cobra.Command, flag string, values ...string) {
	// It fails only for a flag that does not exist, which the tests of completion would show.
	_ = command.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// misused is an argument that cannot work.
func misused(format string, args ...any) *failure.Error {
	return failure.New(failure.Invalid, failure.ReasonInvalidArgument, format, args...)
}
