//go:build faults

package fault

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
)

var names = sync.OnceValue(func() []string { return strings.Split(os.Getenv("VMREPLICA_FAULTS"), ",") })

// Enabled says whether a fault is asked for.
func Enabled(name string) bool { return slices.Contains(names(), name) }

// Hit is a crash point: where it is asked for, the process says so on standard error and is killed.
func Hit(name string) {
	if Enabled(name) {
		fmt.Fprintf(os.Stderr, "fault: killed at %s\n", name)
		if self, err := os.FindProcess(os.Getpid()); err == nil {
			_ = self.Kill()
		}
		select {}
	}
}
