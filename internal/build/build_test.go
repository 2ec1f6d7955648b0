package build

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestVersionIsNeverEmpty(t *testing.T) {
	info := Read()
	if info.Version == "" || info.Go != runtime.Version() || info.Platform != runtime.GOOS+"/"+runtime.GOARCH {
		t.Errorf("got %+v", info)
	}
}

func TestStampWinsOverTheModulesRecord(t *testing.T) {
	recorded := &debug.BuildInfo{
		Main:     debug.Module{Version: "v1.0.0"},
		Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}},
	}
	for stamp, want := range map[string]string{"": "v1.0.0", "2.0.0-4-gabc": "2.0.0-4-gabc"} {
		info := Info{Version: stamp}
		info.complete(recorded)
		if info.Version != want || info.Revision != "abc" {
			t.Errorf("stamp %q: got %+v, want version %s", stamp, info, want)
		}
	}
	plain := Info{}
	plain.complete(&debug.BuildInfo{Main: debug.Module{Version: "(devel)"}})
	if plain.Version != "" {
		t.Errorf("a plain build calls itself %q", plain.Version)
	}
}
