package command

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vmreplica/cmd/vmreplica/render"
	"vmreplica/internal/pki"
)

func (v *invocation) pki() *cobra.Command {
	command := &cobra.Command{
		Use:   "pki",
		Short: "Make the certificates by which agents and operators know each other.",
		Long: `Make the certificates by which agents and operators know each other.

Use "init" once, then "issue" for each agent and each person. Keep the directory where no agent runs: who has ca.key
can become anybody.`,
		Example: `  vmreplica pki init --dir pki
  vmreplica pki issue --dir pki --role operator --name alice`,
		GroupID: groupSetUp, Args: cobra.NoArgs, RunE: showHelp,
	}
	command.AddCommand(v.pkiInit(), v.pkiIssue())
	return command
}

func (v *invocation) pkiInit() *cobra.Command {
	var directory, domain string
	command := &cobra.Command{
		Use:   "init",
		Short: "Make an authority.",
		Long: `Make an authority.

Use it once for all hosts that belong together. It is good for ten years, and an existing one is never written over.`,
		Example: `  vmreplica pki init --dir pki --trust-domain example.com`,
		Args:    cobra.NoArgs,
		RunE: v.local(func([]string) error {
			made, err := pki.Init(directory, domain)
			if err != nil {
				return err
			}
			return v.printer.Value(struct {
				Path        string    `json:"path"`
				TrustDomain string    `json:"trustDomain"`
				NotAfter    time.Time `json:"notAfter"`
			}{made.Path, made.TrustDomain, made.NotAfter}, func(page *render.Page) {
				page.Line("The authority of %s is in %s, good until %s.", made.TrustDomain, made.Path, day(made.NotAfter))
				page.Line("Next: vmreplica pki issue --dir %s --role replica --name NAME --host HOST", shellWord(directory))
			})
		}),
	}
	command.Flags().StringVar(&directory, "dir", "", "`DIR` of the authority; it is made if it is missing")
	command.Flags().StringVar(&domain, "trust-domain", "", "`DOMAIN` to which all agents belong (default "+pki.DefaultTrustDomain+")")
	// It fails only for a flag that does not exist.
	_ = command.MarkFlagRequired("dir")
	return command
}

func (v *invocation) pkiIssue() *cobra.Command {
	var directory, role, name string
	var hosts []string
	command := &cobra.Command{
		Use:   "issue",
		Short: "Issue or renew a certificate.",
		Long: `Issue or renew a certificate.

Use it for each agent and each person; copy DIR/NAME to where it is used, as its --tls-dir. It is good for one year;
issued again it is renewed, with the same hosts unless others are given, and agents take it over without a restart.
A replica's --host is the name or address by which primaries dial it; loopback is always included.`,
		Example: `  vmreplica pki issue --dir pki --role replica --name r1 --host replica.example
  vmreplica pki issue --dir pki --role primary --name host1
  vmreplica pki issue --dir pki --role operator --name alice`,
		Args: cobra.NoArgs,
		RunE: v.local(func([]string) error {
			issued, err := pki.Issue(directory, role, name, hosts)
			if err != nil {
				return err
			}
			return v.printIssued(issued)
		}),
	}
	set := command.Flags()
	set.StringVar(&directory, "dir", "", "`DIR` of the authority")
	set.StringVar(&role, "role", "", "`ROLE`: primary, replica, operator or viewer")
	set.StringVar(&name, "name", "", "`NAME` of the holder")
	set.StringArrayVar(&hosts, "host", nil, "DNS name or address `HOST` by which an agent is dialled; repeatable")
	complete(command, "role", "primary", "replica", "operator", "viewer")
	for _, required := range []string{"dir", "role", "name"} {
		// It fails only for a flag that does not exist.
		_ = command.MarkFlagRequired(required)
	}
	return command
}

func (v *invocation) printIssued(issued pki.Certificate) error {
	return v.printer.Value(struct {
		Identity  string    `json:"identity"`
		Directory string    `json:"directory"`
		Hosts     []string  `json:"hosts"`
		NotAfter  time.Time `json:"notAfter"`
		Renewed   bool      `json:"renewed"`
	}{issued.Identity, issued.Directory, issued.Hosts, issued.NotAfter, issued.Renewed}, func(page *render.Page) {
		done := map[bool]string{true: "Renewed", false: "Issued"}[issued.Renewed]
		page.Line("%s %s, good until %s.", done, issued.Identity, day(issued.NotAfter))
		if len(issued.Hosts) > 0 {
			page.Line("  Hosts: %s", strings.Join(issued.Hosts, ", "))
		}
		page.Line("  Use it with: --tls-dir %s", shellWord(issued.Directory))
	})
}

func day(t time.Time) string { return t.Format(time.DateOnly) }
