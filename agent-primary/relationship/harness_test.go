package relationship_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"vmreplica/agent-primary/relationship"
	"vmreplica/agent-primary/resync"
	"vmreplica/agent-primary/ship"
	"vmreplica/agent-primary/tracking"
	"vmreplica/blockdiff"
	"vmreplica/internal/disk"
	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	"vmreplica/internal/state"
	"vmreplica/internal/state/statetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const imageSize = 1 << 20

// images are one version number for each path; a write raises it.
type images struct {
	mu      sync.Mutex
	version map[string]int64
	inUse   error
	missing bool
	open    int
	backing []string
	hold    chan struct{} // when there is one, looking at an image waits until it is closed
}

func (i *images) write(path string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.version[path]++
}

func (i *images) Open(spec replication.DiskSpec) (tracking.Image, error) {
	path := spec.Path
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.inUse != nil {
		return nil, i.inUse
	}
	if i.missing || i.version[path] == 0 {
		return nil, failure.New(failure.NotFound, failure.ReasonImageMissing, "there is no image at %s", path)
	}
	i.open++
	return &image{images: i, path: path}, nil
}

func (i *images) OpenLive(spec replication.DiskSpec) (disk.Image, error) {
	return nil, failure.New(failure.Precondition, failure.ReasonUnsupported, "versions are no image").On("", spec.ID)
}

func (i *images) Backing(replication.DiskSpec) ([]string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.backing, nil
}

func (i *images) Stamp(spec replication.DiskSpec) (disk.Stamp, error) {
	if i.hold != nil {
		<-i.hold
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.missing {
		return disk.Stamp{}, failure.New(failure.NotFound, failure.ReasonImageMissing, "there is no image at %s", spec.Path)
	}
	return i.stampLocked(spec.Path), nil
}

func (i *images) stampLocked(path string) disk.Stamp {
	return disk.Stamp{Device: 1, Inode: 1, SizeBytes: imageSize, ModifiedNanoseconds: i.version[path]}
}

func (i *images) set(change func(*images)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change(i)
}

type image struct {
	disk.Reader
	images *images
	path   string
}

func (i *image) Size() int64            { return imageSize }
func (i *image) LogicalSectorSize() int { return 512 }
func (i *image) Stamp() (disk.Stamp, error) {
	return i.images.Stamp(replication.DiskSpec{Path: i.path})
}

func (i *image) Close() error {
	i.images.set(func(all *images) { all.open-- })
	return nil
}

// replica is a replica agent in memory. What it holds of a disk is the version that was last committed.
type replica struct {
	mu       sync.Mutex
	prepared []relationship.Place
	exists   bool
	uid      replication.ID
	position relationship.Position
	holds    map[string]int64
	received map[string]int64 // of the open transfer
	doubt    string
	merges   int // how often it answers that layers still wait
	// mergeProblem stands in their way.
	mergeProblem *relationship.MergeProblem
	down         bool
	another      bool // an agent that is no replica answers at its address
	loseReply    bool // of the next commit
	refuse       error
	commits      int
	aborts       []replication.ID
	released     bool
	begins       []resync.Begin
	opens        []resync.Open
	prepares     int
}

func unreachable() error {
	return failure.New(failure.Unreachable, failure.ReasonReplicaUnreachable, "the replica cannot be reached")
}

func (r *replica) set(change func(*replica)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r)
}

// At implements Replicas.
func (r *replica) At(_ string, about relationship.Identity) relationship.Replica {
	return &link{replica: r, about: about}
}

type link struct {
	*replica
	about relationship.Identity
}

// enter locks the replica, unless it cannot be reached.
func (l *link) enter() error {
	l.mu.Lock()
	if l.down {
		l.mu.Unlock()
		return unreachable()
	}
	if l.another {
		l.mu.Unlock()
		return failure.New(failure.Precondition, failure.ReasonWrongRole, "no replica answers there").Try("Give another address.")
	}
	return nil
}

func (l *link) Hello(context.Context) (relationship.Hello, error) {
	if err := l.enter(); err != nil {
		return relationship.Hello{}, err
	}
	defer l.mu.Unlock()
	return relationship.Hello{Name: "host2", Proof: blockdiff.BLAKE3, Authorization: "entry"}, nil
}

func (l *link) known() error {
	if !l.exists || l.uid != l.about.UID {
		return failure.New(failure.NotFound, failure.ReasonNotFound, "no record")
	}
	return nil
}

func (l *link) Reconcile(context.Context, int) (relationship.Position, error) {
	if err := l.enter(); err != nil {
		return relationship.Position{}, err
	}
	defer l.mu.Unlock()
	if err := l.known(); err != nil {
		return relationship.Position{}, err
	}
	position := l.position
	if l.merges > 0 {
		l.merges--
		position.LayersToMerge, position.MergeProblem = 1, l.mergeProblem
	}
	position.Disks = []relationship.PositionDisk{{ID: "root", Doubt: l.doubt}}
	return position, nil
}

func (l *link) Prepare(_ context.Context, p relationship.Preparation) ([]string, error) {
	if err := l.enter(); err != nil {
		return nil, err
	}
	defer l.mu.Unlock()
	if l.refuse != nil {
		return nil, l.refuse
	}
	paths := make([]string, len(p.Disks))
	if p.ValidateOnly {
		return paths, nil
	}
	if p.UseExisting && !l.exists && len(l.holds) == 0 {
		return nil, failure.New(failure.Precondition, failure.ReasonBaseMissing, "nothing lies there")
	}
	if l.exists && l.uid != l.about.UID {
		return nil, failure.New(failure.Exists, failure.ReasonAlreadyExists, "another uid")
	}
	l.prepares++
	l.prepared = p.Disks
	l.exists, l.uid = true, l.about.UID
	return paths, nil
}

func (l *link) Release(context.Context, bool) ([]string, error) {
	if err := l.enter(); err != nil {
		return nil, err
	}
	defer l.mu.Unlock()
	if err := l.known(); err != nil {
		return nil, err
	}
	l.exists, l.released, l.position = false, true, relationship.Position{}
	return []string{"kept"}, nil
}

func (l *link) Transfers(blockdiff.Algorithm) relationship.Transfers { return l }

func (l *link) Ship(context.Context, ship.Open) (ship.Stream, ship.Opened, error) {
	return nil, ship.Opened{}, unreachable()
}

func (l *link) Begin(_ context.Context, begin resync.Begin) ([]resync.Cursor, error) {
	if err := l.enter(); err != nil {
		return nil, err
	}
	defer l.mu.Unlock()
	if l.position.Transfer != "" && l.position.Transfer != begin.Transfer && !begin.Restart {
		return nil, failure.New(failure.Exists, failure.ReasonResyncRunning, "transfer %s is open", l.position.Transfer)
	}
	if begin.Transfer == l.position.CommittedTransfer {
		return nil, failure.New(failure.Precondition, failure.ReasonCommitted, "it has committed")
	}
	if l.position.Transfer != begin.Transfer {
		l.received = map[string]int64{}
	}
	l.position.Transfer = begin.Transfer
	l.begins = append(l.begins, begin)
	return make([]resync.Cursor, len(begin.Disks)), nil
}

func (l *link) Open(_ context.Context, open resync.Open) (resync.Stream, resync.Opened, error) {
	if err := l.enter(); err != nil {
		return nil, resync.Opened{}, err
	}
	defer l.mu.Unlock()
	l.opens = append(l.opens, open)
	return closed{}, resync.Opened{}, nil
}

type closed struct{ resync.Stream }

func (closed) Close() {}

func (l *link) Commit(_ context.Context, commit resync.Commit) (resync.Committed, error) {
	if err := l.enter(); err != nil {
		return resync.Committed{}, err
	}
	defer l.mu.Unlock()
	if l.refuse != nil {
		return resync.Committed{}, l.refuse
	}
	if commit.Transfer != l.position.CommittedTransfer {
		if commit.Transfer != l.position.Transfer {
			return resync.Committed{}, failure.New(failure.Precondition, failure.ReasonWrongState, "not open")
		}
		l.commits++
		l.position = relationship.Position{
			Lineage: commit.Lineage, Cut: commit.Cut, CommittedTransfer: commit.Transfer,
		}
		l.holds = l.received
	}
	if l.loseReply {
		l.loseReply = false
		return resync.Committed{}, unreachable()
	}
	return resync.Committed{MergePending: l.merges > 0}, nil
}

func (l *link) Abort(_ context.Context, transfer replication.ID) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.mu.Unlock()
	l.aborts = append(l.aborts, transfer)
	if transfer == l.position.CommittedTransfer {
		return failure.New(failure.Precondition, failure.ReasonCommitted, "it has committed")
	}
	if l.position.Transfer == transfer {
		l.position.Transfer, l.received = "", nil
	}
	return nil
}

// pair is a primary's relationships with one replica, in one synctest bubble.
type pair struct {
	t        *testing.T
	images   *images
	replica  *replica
	recorder *durabletest.Recorder
	slots    *relationship.Slots
	// during is called in each attempt after the disks are open, before it succeeds.
	during func(ctx context.Context, attempt int) error
	// deaf makes attempts succeed though they were told to stop, as one that had just finished would.
	deaf bool
	// moved is told of each pass's counters before it may fail.
	moved    func(*resync.Progress)
	attempts int
	mu       sync.Mutex
}

func newPair(t *testing.T) *pair {
	return &pair{
		t: t, images: &images{version: map[string]int64{rootPath: 1}}, replica: &replica{},
		recorder: durabletest.New(), slots: relationship.NewSlots(3),
	}
}

const rootPath = "/images/root.raw"

// attempt stands for resync.Attempt: it begins, opens each disk, and what is read reaches the replica.
func (p *pair) attempt(ctx context.Context, peer resync.Peer, o resync.Options) (resync.Outcome, error) {
	p.mu.Lock()
	p.attempts++
	number := p.attempts
	p.mu.Unlock()
	begin := resync.Begin{Transfer: o.Transfer, Kind: o.Kind, Restart: o.DiscardOther, Lineage: o.Lineage, Cut: o.Cut}
	for _, d := range o.Disks {
		begin.Disks = append(begin.Disks, resync.BeginDisk{ID: d.ID})
	}
	if _, err := peer.Begin(ctx, begin); err != nil {
		return resync.Outcome{}, err
	}
	var outcome resync.Outcome
	for _, d := range o.Disks {
		stream, _, err := peer.Open(ctx, resync.Open{Transfer: o.Transfer, Disk: d.ID, Restart: d.Restart})
		if err != nil {
			return resync.Outcome{}, err
		}
		stream.Close()
		held := p.read(o.Kind, d)
		if p.moved != nil {
			p.moved(d.Progress)
		}
		if p.during != nil {
			if err := p.during(ctx, number); err != nil {
				return resync.Outcome{}, err
			}
		}
		if err := d.Source.Continuous(d.Cut); err != nil {
			return resync.Outcome{}, err
		}
		d.Progress.Restore(resync.Figures{ComparedBytes: imageSize, DurableBytes: imageSize, BlocksDiffering: 1, BytesDiffering: 4096})
		outcome.Disks = append(outcome.Disks, resync.DiskOutcome{
			ID: d.ID, Root: root(d.Cut.Stamp.ModifiedNanoseconds), ReplicaRoot: root(held),
		})
	}
	if p.deaf {
		return outcome, nil
	}
	return outcome, ctx.Err()
}

// tried is how many attempts there were.
func (p *pair) tried() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.attempts
}

// read moves a disk's present version to the replica, or finds which version a verify meets there.
func (p *pair) read(kind replication.ResyncKind, d resync.Disk) int64 {
	version := d.Cut.Stamp.ModifiedNanoseconds
	p.replica.mu.Lock()
	defer p.replica.mu.Unlock()
	if kind == replication.KindVerify {
		return p.replica.holds[d.ID]
	}
	if p.replica.received != nil {
		p.replica.received[d.ID] = version
	}
	return version
}

func root(version int64) blockdiff.Hash { return blockdiff.Hash{1, byte(version)} }

// count is how many events of a type the store holds.
func (p *pair) count(a agent, typ string) (count int) {
	p.t.Helper()
	all, err := a.events.List("", 0, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, e := range all {
		if e.Type == typ {
			count++
		}
	}
	return count
}

// last is the newest event of a type.
func (p *pair) last(a agent, typ string) (last event.Event) {
	p.t.Helper()
	all, err := a.events.List("", 0, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, e := range all {
		if e.Type == typ && e.Sequence > last.Sequence {
			last = e
		}
	}
	return last
}

// agent is one run of the primary.
type agent struct {
	*relationship.Manager
	events *event.Log
	stop   func()
}

func (p *pair) start() agent { return p.startOn(statetest.New(p.recorder)) }

func (p *pair) startOn(store state.Store) agent {
	p.t.Helper()
	log := slog.New(slog.DiscardHandler)
	events, err := event.Open(store, log, time.Now)
	if errors.Is(err, errCrash) {
		return agent{stop: func() {}}
	}
	if err != nil {
		p.t.Fatal(err)
	}
	manager, err := relationship.Open(relationship.Config{
		Store: store, Requests: state.Requests{Clock: time.Now}, Events: events, Images: p.images,
		Replicas: p.replica, Attempt: p.attempt, Slots: p.slots, Log: log,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		manager.Run(ctx)
	}()
	return agent{Manager: manager, events: events, stop: func() { cancel(); <-done }}
}

func spec() relationship.Create {
	return relationship.Create{Name: "web01", Spec: replication.Spec{
		ReplicaAddress: "replica:7443",
		Disks:          []replication.DiskSpec{{ID: "root", Path: rootPath, Format: replication.FormatRaw}},
	}}
}

// enabled is a running agent with one VM that is ready for its first copy.
func (p *pair) enabled() agent {
	p.t.Helper()
	a := p.start()
	if _, err := a.Create(p.t.Context(), spec()); err != nil {
		p.t.Fatal(err)
	}
	return a
}

// replicating is a running agent with one VM whose first copy is done.
func (p *pair) replicating() agent {
	p.t.Helper()
	a := p.enabled()
	p.begin(a, replication.KindInitial)
	p.settle()
	p.want(a, replication.Replicating)
	return a
}

func (p *pair) begin(a agent, kind replication.ResyncKind) relationship.ResyncView {
	p.t.Helper()
	started, err := a.Start(p.t.Context(), "web01", relationship.Start{Kind: kind}, state.Request{})
	if err != nil {
		p.t.Fatal(err)
	}
	return started
}

// settle lets ten simulated seconds pass, which every healthy task needs less of.
func (p *pair) settle() {
	time.Sleep(10 * time.Second)
	synctest.Wait()
}

func (p *pair) view(a agent) relationship.View {
	p.t.Helper()
	view, err := a.Get("web01")
	if err != nil {
		p.t.Fatal(err)
	}
	return view
}

func (p *pair) want(a agent, want replication.State) relationship.View {
	p.t.Helper()
	view := p.view(a)
	if view.State != want {
		p.t.Fatalf("the state is %v, want %v; resync %+v, cause %v %s", view.State, want, view.Resync, view.Cause, view.Evidence)
	}
	p.honest(view)
	return view
}

// honest checks that Replicating is claimed only of what the replica holds.
func (p *pair) honest(view relationship.View) {
	p.t.Helper()
	if view.State != replication.Replicating {
		return
	}
	p.replica.mu.Lock()
	defer p.replica.mu.Unlock()
	if view.Lineage == "" || view.Lineage != p.replica.position.Lineage || view.Cut != p.replica.position.Cut ||
		view.ProvenRoot == "" || view.Disks[0].Stamp.ModifiedNanoseconds != p.replica.holds["root"] {
		p.t.Fatalf("Replicating is claimed of lineage %s cut %s version %d; the replica has %s %s version %d", view.Lineage, view.Cut,
			view.Disks[0].Stamp.ModifiedNanoseconds, p.replica.position.Lineage, p.replica.position.Cut, p.replica.holds["root"])
	}
}

func wantReason(t *testing.T, err error, reason string) *failure.Error {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %s", reason)
	}
	found := failure.Find(err)
	if found.Reason != reason {
		t.Fatalf("got %s (%v), want %s", found.Reason, err, reason)
	}
	return found
}

func reasonCodes(view relationship.View) string {
	codes := ""
	for _, reason := range view.Reasons {
		codes += fmt.Sprintf("%s:%d ", reason.Code, reason.Health)
	}
	return codes
}

var errCrash = errors.New("crash")
