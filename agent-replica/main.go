// Command agent-replica runs on the host that holds replicas of virtual machines' disks. It accepts primaries that
// its operator has authorized, keeps what they send below one directory, and merges it.
package main

import (
	"context"
	"os"

	"vmreplica/agent-replica/replica"
	"vmreplica/internal/daemon"
)

func main() {
	config := replica.Defaults()
	os.Exit(daemon.Main(daemon.Program{
		Name:    "agent-replica",
		Purpose: "hold replicas of virtual machines' disks for the primaries that are authorized here",
		Config:  config,
		Run: func(ctx context.Context, host *daemon.Host) error {
			return replica.Run(ctx, config, host)
		},
	}, os.Args[1:], os.Stdout, os.Stderr))
}
