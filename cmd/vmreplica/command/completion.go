package command

import (
	"io"

	"github.com/spf13/cobra"
)

func (v *invocation) completion() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Write the completion script of a shell.",
		Long: `Write the completion script of a shell.

Use it once for each shell, so that it completes verbs and flags.`,
		Example: `  vmreplica completion bash > /etc/bash_completion.d/vmreplica
  source <(vmreplica completion zsh)
  vmreplica completion powershell | Out-String | Invoke-Expression`,
		GroupID: groupProgram, Args: cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(command *cobra.Command, args []string) error {
			v.given = true
			return script(command.Root(), args[0], v.Out)
		},
	}
}

func script(root *cobra.Command, shell string, out io.Writer) error {
	switch shell {
	case "bash":
		return root.GenBashCompletionV2(out, true)
	case "zsh":
		return root.GenZshCompletion(out)
	case "fish":
		return root.GenFishCompletion(out, true)
	default:
		return root.GenPowerShellCompletionWithDesc(out)
	}
}
