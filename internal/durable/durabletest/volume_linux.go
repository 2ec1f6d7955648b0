package durabletest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Volume is a real ext4 filesystem on a file of the host, whose power can be cut: what was not synced is gone.
// Making one needs root, mkfs.ext4 and xfs_io.
type Volume struct {
	t     *testing.T
	image string
	// Path is where it is mounted.
	Path string
}

// NewVolume makes and mounts a volume of size bytes for the test's duration.
func NewVolume(t *testing.T, size int64) *Volume {
	t.Helper()
	volume := &Volume{t: t, image: filepath.Join(t.TempDir(), "volume.ext4"), Path: t.TempDir()}
	must(t, os.WriteFile(volume.image, nil, 0o600))
	must(t, os.Truncate(volume.image, size))
	volume.run("mkfs.ext4", "-q", volume.image)
	volume.mount()
	t.Cleanup(volume.unmount)
	return volume
}

// Cut cuts the power. Until Restore every access that needs the medium fails.
func (v *Volume) Cut() {
	v.t.Helper()
	v.run("xfs_io", "-x", "-c", "shutdown", v.Path)
}

// Restore mounts what the cut left. Files on the volume must be closed.
func (v *Volume) Restore() {
	v.t.Helper()
	v.unmount()
	v.mount()
}

func (v *Volume) mount() { v.run("mount", "-o", "loop", v.image, v.Path) }

func (v *Volume) unmount() { v.run("umount", v.Path) }

func (v *Volume) run(name string, args ...string) {
	v.t.Helper()
	if output, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		v.t.Fatalf("%s %v: %v\n%s", name, args, err, output)
	}
}
