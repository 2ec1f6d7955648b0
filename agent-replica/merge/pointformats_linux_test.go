package merge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/replication"
)

// hostLife is a life on the host's files, where other programs read the points.
type hostLife struct {
	*life
	host *host
}

func newHostLife(t *testing.T, k kind, device bool) *hostLife {
	t.Helper()
	h := newHost(t, k, device)
	l, err := begin(h.world, durabletest.New(), 8, 3)
	check(t, err)
	return &hostLife{l, h}
}

// pointFile is the highest file of what a point is, and its format.
func (h *hostLife) pointFile(id string, point replication.ID) (path string, f replication.Format, differencing bool) {
	h.host.t.Helper()
	d := h.host.disk(id)
	path, f = h.host.path(d.Base.File), d.Base.Format
	if d.Base.Device != "" {
		path = d.Base.Device
	}
	for _, layer := range d.Layers {
		if layer.Point != nil && layer.Point.ID == point {
			return path, f, differencing
		}
		path, f, differencing = h.host.path(layer.File), layer.Format, true
	}
	h.host.t.Fatalf("disk %s has no point %s", id, point)
	return "", "", false
}

// pointsAgree compares every point, as another program reads it, with what its cut was.
func (h *hostLife) pointsAgree(when string) {
	h.host.t.Helper()
	record := recordOf(h.host.t, h.world)
	for _, point := range record.Points() {
		for _, id := range diskIDs {
			if err := h.sameForOthers(id, point.ID); err != nil {
				h.host.t.Fatalf("%s: point %.8s of disk %s: %v", when, point.ID, id, err)
			}
		}
	}
}

func (h *hostLife) sameForOthers(id string, point replication.ID) error {
	path, f, differencing := h.pointFile(id, point)
	return agrees(path, f, differencing, filepath.Join(h.host.t.TempDir(), "flat"), h.cuts[point][id])
}

// agrees is others for files that the agent has open.
func agrees(path string, f replication.Format, differencing bool, flat string, want []byte) error {
	var got []byte
	var err error
	if differencing && f != "qcow2" {
		got, err = others(path, f, true)
	} else {
		driver := f
		if f == "vhd" {
			driver = "vpc"
		}
		if _, err = output("qemu-img", "convert", "-U", "-f", string(driver), "-O", "raw", path, flat); err == nil {
			got, err = os.ReadFile(flat)
		}
	}
	if err != nil {
		return err
	}
	if at := firstDifference(got, want); at >= 0 {
		return fmt.Errorf("another program reads another byte at %d", at)
	}
	return nil
}

// whole checks everything that others may see of a chain at rest.
func (h *hostLife) whole(when string) {
	h.host.t.Helper()
	h.host.agree(when, h.now)
	h.pointsAgree(when)
	for _, id := range diskIDs {
		h.host.linked(id)
	}
	wantContent(h.host.t, h.world, h.now)
	if err := h.undoubted(); err != nil {
		h.host.t.Fatalf("%s: %v", when, err)
	}
}

// TestPointsOfEveryFormat lives with points on the host's files: other programs read the chain and every point as we do,
// also while cycles commit and are merged above it.
func TestPointsOfEveryFormat(t *testing.T) {
	for _, c := range combinations {
		t.Run(c.name, func(t *testing.T) {
			h := newHostLife(t, kind{base: c.base, differencing: c.differencing}, c.device)
			steps(t, h.delta, h.recover, h.seal)
			h.whole("one point")
			steps(t, h.delta, h.recover)
			h.whole("merged into the layer on the point")
			steps(t, h.delta, h.seal)
			h.whole("a second point above what waits")
			steps(t, h.recover)
			h.whole("merged below it")
			steps(t, h.delta, h.recover)
			h.whole("merged above it")
			h.readWhileCommitting()
			h.whole("after cycles under a reader")
			steps(t, h.drop, h.recover)
			h.whole("the oldest dropped")
			steps(t, h.resync, h.recover)
			h.whole("resynchronized")
			if n := h.layers(t); n != 0 {
				t.Errorf("%d layers are left", n)
			}
			check(t, h.checkSettled(recordOf(t, h.world)))
		})
	}
}

// readWhileCommitting lets another program read the newest point of a disk all the time while cycles commit.
func (h *hostLife) readWhileCommitting() {
	h.host.t.Helper()
	point := h.kept[len(h.kept)-1]
	path, f, differencing := h.pointFile(diskIDs[0], point)
	want, flat := h.cuts[point][diskIDs[0]], filepath.Join(h.host.t.TempDir(), "flat")
	stop, read := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			err := agrees(path, f, differencing, flat, want)
			select {
			case <-stop:
				read <- err
				return
			default:
			}
			if err != nil {
				read <- err
				return
			}
		}
	}()
	// The disks stay open: a program that is being started has this one's files open for a moment, and their locks.
	errs := []error{h.vm().Acquire()}
	for range 4 {
		errs = append(errs, h.delta(), h.recover())
	}
	close(stop)
	check(h.host.t, errors.Join(append(errs, <-read, h.vm().Release())...))
}

// TestNobodyElseReadsALayerThatIsHalfMergedIntoAnother: what stands on the target is refused until the merge is done, and
// the point below it is read as ever.
func TestNobodyElseReadsALayerThatIsHalfMergedIntoAnother(t *testing.T) {
	for _, f := range []replication.Format{"vhdx", "vhd"} {
		t.Run(string(f), func(t *testing.T) {
			h := newHostLife(t, kind{base: f}, false)
			steps(t, h.delta, h.recover, h.seal, h.delta)
			d := h.host.disk("root")
			source := h.host.describe(h.host.path(d.Layers[1].File), f).Identity
			check(t, h.vm().Acquire())
			_, err := h.vm().StartMerge("root", d.Layers[1].File, 1)
			check(t, err)
			opened, err := h.vm().Disk("root")
			check(t, err)
			check(t, opened.TakeIdentity(1))
			check(t, copySome(opened.Layers()[1], opened.Below(1)))
			check(t, h.vm().Release())
			if _, err := others(h.host.path(d.Layers[1].File), f, true); err == nil {
				t.Error("the layer was read")
			}
			h.pointsAgree("half merged")
			wantContent(t, h.world, h.now)
			check(t, h.recover())
			h.whole("merged")
			if target := h.host.describe(h.host.path(d.Layers[0].File), f); target.Identity != source || target.Dirty || source == disk.None {
				t.Errorf("the target has the identity %s, the layer had %s; dirty: %t", target.Identity, source, target.Dirty)
			}
			check(t, h.merger.Settle(context.Background(), testVM))
		})
	}
}
