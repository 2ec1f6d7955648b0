// Command agent-primary runs beside virtual machines and keeps their disks replicated to another host.
package main

import (
	"context"
	"os"
	_ "time/tzdata" // resync windows are in time zones that the host may not know

	"vmreplica/agent-primary/primary"
	"vmreplica/internal/daemon"
)

func main() {
	config := primary.NewConfig()
	os.Exit(daemon.Main(daemon.Program{
		Name:    "agent-primary",
		Purpose: "the agent beside the virtual machines: it compares their disks with the replica's and ships what differs",
		Config:  config,
		Run: func(ctx context.Context, host *daemon.Host) error {
			return primary.Run(ctx, config, host)
		},
	}, os.Args[1:], os.Stdout, os.Stderr))
}
