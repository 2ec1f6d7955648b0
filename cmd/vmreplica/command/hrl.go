package command

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"vmreplica/internal/failure"
	"vmreplica/internal/hrl"
)

func (v *invocation) hrl() *cobra.Command {
	command := &cobra.Command{
		Use:   "hrl",
		Short: "Look into the log in which a machine's writes are marked.",
		Long: `Look into the log in which a machine's writes are marked.

Use it on the primary's host, where the files lie: STATE_DIR/hrl/VM-UID/DISK.hrl. No agent is asked and nothing is
written.`,
		Example: `  vmreplica hrl info /var/lib/vmreplica/primary/hrl/0f1e2d3c4b5a69788796a5b4c3d2e1f0/root.img.hrl`,
		GroupID: groupLook, Args: cobra.NoArgs, RunE: showHelp,
	}
	command.AddCommand(&cobra.Command{
		Use:   "info FILE",
		Short: "Show what a Hyper-V Replica Log says.",
		Long: `Show what a Hyper-V Replica Log says.

Use it to see whether the log is exact or lost, and since when; whether it was closed cleanly, how often it was opened
and how much of the disk is marked. An agent may have it open: the marks are then of no one moment.`,
		Example: `  vmreplica hrl info /var/lib/vmreplica/primary/hrl/0f1e2d3c4b5a69788796a5b4c3d2e1f0/root.img.hrl
  vmreplica hrl info root.img.hrl -o json | jq .loss.cause`,
		Args: cobra.ExactArgs(1),
		RunE: v.local(func(args []string) error { return v.runHRLInfo(args[0]) }),
	})
	return command
}

func (v *invocation) runHRLInfo(path string) error {
	about, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return failure.New(failure.NotFound, failure.ReasonNotFound, "there is no file %s", path).
			Try("An agent keeps them at STATE_DIR/hrl/VM-UID/DISK.hrl; the VM's uid is in: vmreplica describe VM")
	case err == nil && !about.Mode().IsRegular():
		err = errors.New(path + " is no file")
	}
	if err != nil {
		return unreadableLog(err)
	}
	file, err := os.Open(path)
	if err != nil {
		return unreadableLog(err)
	}
	defer file.Close()
	info, err := hrl.Inspect(file, about.Size())
	if err != nil {
		return failure.New(failure.Corrupt, failure.ReasonTrackingLost, "%s is no whole log: %w", path, err).
			Try("The agent that finds it so requires a resync of its disk; nothing else need be done.")
	}
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	return v.printer.HRL(path, info)
}

func unreadableLog(err error) error {
	return failure.New(failure.Precondition, failure.ReasonImageUnreadable, "the log cannot be read: %w", err).
		Try("Ask as the user that the agent runs as.")
}
