// Package build says which build of the product this is. The Makefile stamps version and revision with
// -ldflags "-X vmreplica/internal/build.version=…"; without the stamp the module's own record is used. Nothing is
// kept.
package build

import (
	"runtime"
	"runtime/debug"
)

// version and revision are stamped at link time; empty in a plain go build.
var version, revision string

// Info is one build.
type Info struct {
	// Version is the stamp, else the module's version, else "development".
	Version string
	// Revision is the commit it was built from; empty when unknown.
	Revision string
	// Go is the toolchain, and Platform "os/arch".
	Go, Platform string
}

// Read describes the running program.
func Read() Info {
	info := Info{Version: version, Revision: revision, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if recorded, ok := debug.ReadBuildInfo(); ok {
		info.complete(recorded)
	}
	if info.Version == "" {
		info.Version = "development"
	}
	return info
}

func (i *Info) complete(recorded *debug.BuildInfo) {
	if i.Version == "" && recorded.Main.Version != "(devel)" {
		i.Version = recorded.Main.Version
	}
	for _, setting := range recorded.Settings {
		if setting.Key == "vcs.revision" && i.Revision == "" {
			i.Revision = setting.Value
		}
	}
}

// String is "1.2.0 (linux/amd64, go1.26.8)".
func (i Info) String() string {
	return i.Version + " (" + i.Platform + ", " + i.Go + ")"
}
