package disktest

import (
	"os/exec"
	"strings"
	"testing"
)

// Loop makes a block device over the file at path until the test's end; options are losetup's. It needs root.
func Loop(t *testing.T, path string, options ...string) string {
	t.Helper()
	output, err := exec.Command("losetup", append(options, "--find", "--show", path)...).CombinedOutput()
	if err != nil {
		t.Fatalf("a loop device is needed, which takes root and losetup: %v: %s", err, output)
	}
	device := strings.TrimSpace(string(output))
	t.Cleanup(func() {
		if output, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("detach %s: %v: %s", device, err, output)
		}
	})
	return device
}
