package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmreplica/internal/collide"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// needRoot fails a test that cannot mount.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("mounts and loop devices need root")
	}
}

// onTmpfs makes the storage a file system of its own with so many MiB.
func onTmpfs(megabytes int) func(*pair) {
	return func(p *pair) {
		needRoot(p.t)
		tool(p.t, "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dM", megabytes), "vmreplica-test", p.storage)
		p.t.Cleanup(func() {
			p.replica.kill()
			tool(p.t, "umount", p.storage)
		})
	}
}

func (p *pair) resize(megabytes int) {
	p.t.Helper()
	tool(p.t, "mount", "-o", fmt.Sprintf("remount,size=%dM", megabytes), p.storage)
}

func TestStorageFullAtTheFirstCopy(t *testing.T) {
	t.Parallel()
	p := newPair(t, onTmpfs(32))
	scrambled(t, p.image(), 64*mib, 300)
	p.enabled()
	p.primary.do("start-initial", vm)
	p.full()
	p.resize(200)
	p.ends(p.primary.services())
	equal(t, p.image(), p.base())
	p.primary.try("get", vm).wants(t, 0, "Replicating", "Normal")
}

// full waits until the primary says that the replica has no room.
func (p *pair) full() {
	p.t.Helper()
	s := p.primary.services()
	eventually(p.t, "the storage is full", func() bool { return s.newest(p.t.Context()).GetReason() == "STORAGE_FULL" })
	eventually(p.t, "describe says so", func() bool {
		said := p.primary.do("describe", vm)
		return strings.Contains(said, "Critical, disk root.img (STORAGE_FULL)")
	})
	p.primary.try("events", vm).wants(p.t, 0, "32315", "storage is full")
}

func TestStorageFullDuringAResync(t *testing.T) {
	t.Parallel()
	p := newPair(t, onTmpfs(400))
	scrambled(t, p.image(), 96*mib, 301)
	p.enabled()
	p.primary.do("start-initial", vm, "--wait")
	equal(t, p.image(), p.base())
	before := hash(t, p.base())
	p.resize(150)
	p.limit("16MiB/s")
	rewrite(t, p.image(), 1, 302)
	p.primary.do("resync", vm)
	p.full()
	replica := p.replica.services()
	held := cursor(t, replica)
	if string(before) != string(hash(t, p.base())) {
		t.Error("the base changed before the commit")
	}
	p.resize(500)
	p.limit("none")
	done := p.ends(p.primary.services())
	if done.GetRestarts() != 0 {
		t.Errorf("the pass began again: %v", done)
	}
	t.Logf("full with a cursor of %d MiB; %d MiB were sent for 96", held/mib, done.GetDisks()[0].GetBytesDiffering()/mib)
	equal(t, p.image(), p.base())
	p.primary.try("get", vm).wants(t, 0, "Replicating", "Normal")
}

func TestQuota(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	scrambled(t, p.image(), 32*mib, 303)
	p.replica.do("authorize", primaryName, "--quota", "16MiB")
	if r := p.enabling(p.image()); r.code == 0 {
		p.primary.do("start-initial", vm)
		s := p.primary.services()
		eventually(t, "the quota is said", func() bool { return s.newest(t.Context()).GetReason() == "QUOTA_EXCEEDED" })
		p.replica.do("authorize", primaryName, "--update", "--quota", "1GiB")
		p.ends(s)
	} else {
		r.wants(t, r.code, "QUOTA_EXCEEDED")
		p.replica.do("authorize", primaryName, "--update", "--quota", "1GiB")
		p.enabling(p.image()).wants(t, 0)
		p.primary.do("start-initial", vm, "--wait")
	}
	equal(t, p.image(), p.base())
}

func TestBlocksThatCollide(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	fill(t, p.image(), 64*mib, 304)
	copyFile(t, p.image(), p.base())
	for i, at := range []int64{0, 17 * mib, 17*mib + block, 64*mib - block} {
		here, there := collide.Pair(int64(i))
		put(t, p.image(), at, here)
		put(t, p.base(), at, there)
	}
	p.enabled("--use-existing")
	done := decode(t, p.primary.do("start-initial", vm, "--wait", "-o", "json"), &vmreplicav1.Resync{})
	equal(t, p.image(), p.base())
	if disk := done.GetDisks()[0]; disk.GetSegmentsResent() != 3 {
		t.Errorf("%d segments were sent again, want the 3 with colliding blocks", disk.GetSegmentsResent())
	}
	p.primary.try("verify", vm, "--wait").wants(t, 0, "equal")
	// The guest swaps its own block for one that collides with it.
	_, there := collide.Pair(1)
	put(t, p.image(), 17*mib, there)
	p.primary.do("resync", vm, "--wait")
	equal(t, p.image(), p.base())
}

func put(t *testing.T, path string, at int64, piece []byte) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	write(t, file, at, piece)
}

// loop makes a loop device of a file.
func loop(t *testing.T, file string, sector int) string {
	t.Helper()
	needRoot(t)
	device := tool(t, "losetup", "--find", "--show", fmt.Sprintf("--sector-size=%d", sector), file)
	t.Cleanup(func() { tool(t, "losetup", "--detach", device) })
	return device
}

// withDevices lets both agents open loop devices.
func withDevices(p *pair) {
	p.replica.args = append(p.replica.args, "--device", "/dev/loop*")
	p.primary.args = append(p.primary.args, "--device", "/dev/loop*")
}

func TestBlockDevicesOnBothSides(t *testing.T) {
	t.Parallel()
	var here, there string
	p := newPair(t, withDevices, func(p *pair) {
		files := p.t.TempDir()
		fill(p.t, filepath.Join(files, "here"), 64*mib, 305)
		fill(p.t, filepath.Join(files, "there"), 64*mib, 306)
		here, there = loop(p.t, filepath.Join(files, "here"), 512), loop(p.t, filepath.Join(files, "there"), 512)
	})
	p.replica.do("authorize", primaryName, "--device", vm+"/data="+there)
	stop := p.serves(here)
	p.enabling(here+",id=data", "--use-existing").wants(t, 4, "IMAGE_IN_USE", "qemu-nbd")
	stop()
	p.enabling(here+",id=data", "--use-existing").wants(t, 0)
	p.primary.do("start-initial", vm, "--wait")
	equal(t, here, there)
	changed := rewriteDevice(t, here, 307)
	done := decode(t, p.primary.do("resync", vm, "--wait", "-o", "json"), &vmreplicav1.Resync{})
	equal(t, here, there)
	if sent := done.GetDisks()[0].GetBytesDiffering(); sent != changed {
		t.Errorf("%d bytes were sent for %d", sent, changed)
	}
	p.replica.stop()
	p.primary.stop()
}

// rewriteDevice changes 4 KiB pieces and answers how many bytes.
func rewriteDevice(t *testing.T, device string, seed uint64) (bytes int64) {
	t.Helper()
	random := random(seed)
	piece := make([]byte, 4<<10)
	for i := range int64(50) {
		scramble(piece, random)
		put(t, device, i*mib+i*4096, piece)
		bytes += int64(len(piece))
	}
	tool(t, "blockdev", "--flushbufs", device)
	return bytes
}

func TestSectorSizesThatDiffer(t *testing.T) {
	t.Parallel()
	var here, there string
	p := newPair(t, withDevices, func(p *pair) {
		files := p.t.TempDir()
		fill(p.t, filepath.Join(files, "here"), 16*mib, 308)
		fill(p.t, filepath.Join(files, "there"), 16*mib, 309)
		here, there = loop(p.t, filepath.Join(files, "here"), 512), loop(p.t, filepath.Join(files, "there"), 4096)
	})
	p.replica.do("authorize", primaryName, "--device", vm+"/data="+there)
	p.enabling(here+",id=data", "--use-existing").wants(t, 4, "SECTOR_SIZE_MISMATCH", "512", "4096")
}
