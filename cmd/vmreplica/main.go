// Command vmreplica is how people drive the agents: one verb for each thing that an operator does.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"vmreplica/cmd/vmreplica/command"
	"vmreplica/cmd/vmreplica/render"
)

func main() { os.Exit(run()) }

// run ends waiting at the first signal; the second ends the program at once.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	return command.Run(ctx, os.Args[1:], command.Streams{
		In: os.Stdin, Interactive: render.IsTerminal(os.Stdin) && render.IsTerminal(os.Stderr),
		Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Now: time.Now,
	})
}
