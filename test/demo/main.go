// Command demo shows the main job on this machine: two agents, real disk images, the operator's commands, and
// independent programs that judge the result.
//
// A virtual machine's disk is an ext4 image with a file tree and a SQLite database. Its replica begins as an older
// copy; both were mounted and changed since. The demo brings the replica in step twice: first the adopted copy, then
// after more work on the machine. cmp, e2fsck and sqlite3 say whether it holds. Everything lies in one temporary
// directory and is gone at the end, also after Ctrl-C. It needs Linux, root for the loop mounts, and bin/ from "make".
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(exitCode()) }

// exitCode runs the demo: 0 when everything was right, 130 after Ctrl-C, else 1.
func exitCode() int {
	binaries := flag.String("bin", "bin", "`directory` of the three programs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := demonstrate(ctx, *binaries)
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "\ndemo: interrupted; everything it had made is gone")
		return 130
	case err != nil:
		fmt.Fprintf(os.Stderr, "\ndemo: FAILED: %v\n", err)
		return 1
	}
	return 0
}
