package command

import (
	"github.com/spf13/cobra"

	"vmreplica/cmd/vmreplica/render"
	"vmreplica/internal/build"
)

func (v *invocation) version() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the version of this program.",
		Long: `Show the version of this program.

Use it for a report of a fault; "agent get" shows the agent's.`,
		Example: `  vmreplica version
  vmreplica version -o json`,
		GroupID: groupProgram, Args: cobra.NoArgs,
		RunE: v.local(func([]string) error {
			info := build.Read()
			return v.printer.Value(struct {
				Version  string `json:"version"`
				Revision string `json:"revision"`
				Go       string `json:"go"`
				Platform string `json:"platform"`
			}{info.Version, info.Revision, info.Go, info.Platform}, func(page *render.Page) {
				page.Line("vmreplica %s", info)
			})
		}),
	}
}
