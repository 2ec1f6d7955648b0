package pair_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"path"
	"testing"
	"time"

	"google.golang.org/grpc"

	"vmreplica/agent-primary/relationship"
	"vmreplica/agent-primary/resync"
	"vmreplica/agent-primary/tracking"
	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/merge"
	"vmreplica/agent-replica/receive"
	"vmreplica/agent-replica/storage"
	"vmreplica/blockdiff"
	"vmreplica/internal/disk"
	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/replication"
	"vmreplica/internal/state/statetest"
)

var crashStates = flag.Int("crash-states", 100, "how many states of each transfer are recovered from")

// memory is a primary's image in memory; 4 KiB of zeros are holes.
type memory []byte

func (m memory) Size() int64            { return int64(len(m)) }
func (m memory) LogicalSectorSize() int { return 512 }
func (m memory) Close() error           { return nil }

func (m memory) ReadAt(p []byte, off int64) (int, error) { return copy(p, m[off:]), nil }

func (m memory) Extents(off, n int64) iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		for at := off; at < off+n; at += 4096 {
			length := min(4096, off+n-at)
			kind := disk.Data
			if blockdiff.IsZero(m[at : at+length]) {
				kind = disk.Unmapped
			}
			if !yield(disk.Extent{Offset: at, Length: length, Kind: kind}, nil) {
				return
			}
		}
	}
}

func (m memory) Cut(context.Context) (tracking.Cut, error) {
	return tracking.Cut{ID: replication.NewID()}, nil
}

func (m memory) Continuous(tracking.Cut) error { return nil }

// host is a replica on a recorder.
type host struct {
	t        *testing.T
	recorder *durabletest.Recorder
	registry *chain.Registry
	storage  *storage.Storage
	receiver *receive.Receiver
	link     *peerLink
	stop     func()
}

type peerLink struct {
	relationship.Transfers
}

const crashDirectory = "host-a/" + vmName

func newHost(t *testing.T, recorder *durabletest.Recorder) *host {
	h := &host{t: t, recorder: recorder, storage: storage.New(recorder.Dir(), nil)}
	h.registry = chain.NewRegistry(chain.NewTable(statetest.New(recorder), nil), h.storage)
	limits := receive.DefaultLimits()
	limits.CursorInterval = 2 * time.Millisecond
	h.receiver = receive.New(receive.Config{
		Registry: h.registry, Space: h.storage, Gate: gate{h.registry.Table()}, Log: slog.New(slog.DiscardHandler), Limits: limits,
	})
	link, stop := connect(t, h.receiver, crashUID, func(_ *grpc.StreamServerInfo, s grpc.ServerStream) grpc.ServerStream { return s })
	h.link, h.stop = &peerLink{link.Transfers(blockdiff.BLAKE3)}, stop
	return h
}

// close ends the host as its process would end.
func (h *host) close() {
	h.stop()
	h.receiver.Close()
}

const crashUID = replication.ID("11111111111111111111111111111111")

// prepare puts a base in place, when there is one, and prepares the VM.
func (h *host) prepare(base []byte, size int64) error {
	dir := h.recorder.Dir()
	if base != nil {
		must(h.t, dir.Mkdir(crashDirectory))
		file, err := dir.Create(path.Join(crashDirectory, diskID))
		must(h.t, err)
		must(h.t, file.Truncate(size))
		for off := 0; off < len(base); off += 4096 {
			if part := base[off:min(off+4096, len(base))]; !blockdiff.IsZero(part) {
				_, err := file.WriteAt(part, int64(off))
				must(h.t, err)
			}
		}
		must(h.t, errors.Join(file.Sync(), file.Close(), dir.Sync(crashDirectory)))
	}
	_, err := h.registry.Prepare(chain.Prepare{
		VM: vmName, UID: crashUID, Primary: "p", Authorization: "p", Directory: crashDirectory, Term: 1,
		UseExisting: base != nil, Time: time.Unix(1, 0),
		Disks: []chain.PrepareDisk{{Geometry: chain.Geometry{ID: diskID, SizeBytes: size, LogicalSectorSize: 512}}},
	})
	return err
}

// transfer brings the replica to image: it goes on with the open transfer, or begins one.
func (h *host) transfer(image []byte, kind replication.ResyncKind) error {
	record, err := h.registry.Table().Get(vmName)
	if err != nil {
		return err
	}
	id := replication.NewID()
	if record.Transfer != nil {
		id = record.Transfer.ID
	}
	limits := resync.DefaultLimits()
	limits.FlushInterval = time.Millisecond
	limits.FrameBytes = 64 << 10
	outcome, err := resync.Attempt(h.t.Context(), h.link, resync.Options{
		Transfer: id, Kind: kind, Proof: blockdiff.BLAKE3, Budget: resync.NewBudget(1 << 20), Limits: limits,
		Disks: []resync.Disk{{ID: diskID, Source: memory(image), Progress: &resync.Progress{}}},
	})
	if err != nil {
		return err
	}
	_, err = h.link.Commit(h.t.Context(), resync.Commit{
		Transfer: id, Lineage: replication.NewID(), Cut: replication.NewID(),
		Roots: []resync.DiskRoot{{Disk: diskID, Root: outcome.Disks[0].Root}},
	})
	return err
}

func (h *host) settle() error {
	merger := merge.New(merge.Config{Registry: h.registry, Space: h.storage, Log: slog.New(slog.DiscardHandler)})
	return merger.Settle(h.t.Context(), vmName)
}

// view is what the replica holds, without a layer that is being received unless receiving is set.
func (h *host) view(receiving bool) ([]byte, chain.Record, error) {
	record, err := h.registry.Table().Get(vmName)
	if err != nil {
		return nil, record, err
	}
	d := record.Disks[0]
	if top := len(d.Layers) - 1; top >= 0 && d.Layers[top].State == chain.Receiving && !receiving {
		d.Layers = d.Layers[:top]
	}
	opened, err := chain.OpenDisk(h.storage, d)
	if err != nil {
		return nil, record, err
	}
	content := make([]byte, d.SizeBytes)
	_, err = opened.View().ReadAt(content, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return content, record, errors.Join(err, opened.Close())
}

// check says what a crash has left wrong: a replica that is neither old nor new, or a cursor that promises what is
// not there; then it brings the replica to image and says whether that went wrong.
func check(t *testing.T, crash *durabletest.Crash, old, image []byte, kind replication.ResyncKind) error {
	h := newHost(t, crash.Recorder)
	defer h.close()
	held, record, err := h.view(false)
	if err != nil {
		return err
	}
	committed := crash.Marks()[len(crash.Marks())-1] == true
	switch {
	case record.Lineage == "" && committed:
		return errors.New("a commit that was answered is gone")
	case record.Lineage == "" && old != nil && !bytes.Equal(held, old):
		return errors.New("the base changed before the commit")
	case record.Lineage != "" && !bytes.Equal(held, image):
		return errors.New("committed, and the view is not the primary's image")
	}
	if cursor := record.Cursor(diskID); cursor != nil && cursor.Segment > 0 {
		receiving, _, err := h.view(true)
		if err != nil {
			return err
		}
		upTo := min(cursor.Segment*blockdiff.SegmentSize, int64(len(image)))
		if !bytes.Equal(receiving[:upTo], image[:upTo]) {
			return fmt.Errorf("the cursor promises %d bytes that are not all there", upTo)
		}
	}
	if err := h.settle(); err != nil {
		return err
	}
	if record.Lineage == "" {
		if err := h.transfer(image, kind); err != nil {
			return err
		}
	}
	if err := h.settle(); err != nil {
		return err
	}
	held, _, err = h.view(false)
	if err == nil && !bytes.Equal(held, image) {
		err = errors.New("recovered, and the replica is not the primary's image")
	}
	return err
}

// crashes records a whole transfer and recovers from what a power loss may leave of it. It answers how many states
// were tried and the first thing that was wrong.
func crashes(t *testing.T, old, image []byte, kind replication.ResyncKind, mutant func(durabletest.Op) bool) (int, error) {
	recorder := durabletest.New()
	h := newHost(t, recorder)
	must(t, h.prepare(old, int64(len(image))))
	from := recorder.Ops()
	recorder.Mark(false)
	if mutant != nil {
		recorder.Drop(mutant)
	}
	must(t, h.transfer(image, kind))
	recorder.Mark(true)
	must(t, h.settle())
	h.close()
	every := max(1, 12*(recorder.Ops()-from)/(*crashStates))
	tried := 0
	for crash := range recorder.Crashes(durabletest.Options{From: from, Every: every, Singles: 4, Random: 4}) {
		tried++
		if err := check(t, crash, old, image, kind); err != nil {
			return tried, fmt.Errorf("%s: %w", crash, err)
		}
	}
	return tried, nil
}

// crashImages are an older and a newer image of three segments, mostly holes, that differ in each of them.
func crashImages() (old, image []byte) {
	image = make([]byte, 36*mib)
	for off := 0; off < len(image); off += 3 * mib {
		copy(image[off:], random(uint64(off), 3*blockdiff.BlockSize))
	}
	old = bytes.Clone(image)
	for i, off := 0, 0; off < len(image); i, off = i+1, off+3*mib {
		copy(old[off+4096*(i%8):], random(uint64(off)+77, 20480))
	}
	clear(image[6*mib : 6*mib+blockdiff.BlockSize])
	return old, image
}

func TestCrashInATransfer(t *testing.T) {
	old, image := crashImages()
	for name, c := range map[string]struct {
		old  []byte
		kind replication.ResyncKind
	}{"resync": {old, replication.KindResync}, "first copy": {nil, replication.KindInitial}} {
		t.Run(name, func(t *testing.T) {
			tried, err := crashes(t, c.old, image, c.kind, nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d states", tried)
			if tried < *crashStates/4 {
				t.Fatalf("only %d states were tried", tried)
			}
		})
	}
}

// Each sync of the transfer is needed: without it a crash leaves something wrong.
func TestCrashFindsMutants(t *testing.T) {
	old, image := crashImages()
	for name, c := range map[string]struct {
		old  []byte
		kind replication.ResyncKind
		drop func(durabletest.Op) bool
	}{
		"the layer is not synced":             {old, replication.KindResync, durabletest.SyncOf("*.qcow2")},
		"the base is not synced in a merge":   {old, replication.KindResync, durabletest.SyncOf(diskID)},
		"the base is not synced in a copy":    {nil, replication.KindInitial, durabletest.SyncOf(diskID)},
		"the layer's directory is not synced": {old, replication.KindResync, durabletest.SyncDirOf(vmName)},
	} {
		t.Run(name, func(t *testing.T) {
			if tried, err := crashes(t, c.old, image, c.kind, c.drop); err == nil {
				t.Fatalf("%d states show nothing", tried)
			}
		})
	}
}
