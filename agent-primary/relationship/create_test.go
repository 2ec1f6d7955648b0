package relationship_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"vmreplica/agent-primary/relationship"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	"vmreplica/internal/state"
)

func TestCreateIsTheSameHoweverOften(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.enabled()
		defer a.stop()
		first := p.want(a, replication.ReadyForInitialReplication)
		again, err := a.Create(t.Context(), spec())
		if err != nil || again.UID != first.UID || p.replica.prepares != 1 || p.count(a, event.TypeCreated) != 1 {
			t.Fatalf("%v, %d preparations", err, p.replica.prepares)
		}
		if first.ReplicaName != "host2" || first.Disks[0].SizeBytes != imageSize || first.Disks[0].LogicalSectorSize != 512 {
			t.Fatalf("%+v", first.Record)
		}
	})
}

func TestCreateNamesWhatDiffers(t *testing.T) {
	cases := map[string]struct {
		change func(*relationship.Create)
		want   string
	}{
		"another replica": {func(c *relationship.Create) { c.Spec.ReplicaAddress = "other:1" }, "other:1"},
		"another disk": {func(c *relationship.Create) {
			c.Spec.Disks = []replication.DiskSpec{{ID: "root", Path: "/images/other.raw", Format: replication.FormatRaw}}
		}, "/images/other.raw"},
		"existing files": {func(c *relationship.Create) { c.Spec.UseExisting = true }, "existing"},
		"labels":         {func(c *relationship.Create) { c.Labels = map[string]string{"a": "b"} }, "labels"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, p *pair) {
				a := p.enabled()
				defer a.stop()
				asked := spec()
				test.change(&asked)
				_, err := a.Create(t.Context(), asked)
				found := wantReason(t, err, failure.ReasonAlreadyExists)
				if found.Class != failure.Exists || !strings.Contains(found.Message, test.want) || found.VM != "web01" {
					t.Fatalf("%v", found)
				}
			})
		})
	}
}

func TestCreateThatCannotBe(t *testing.T) {
	cases := map[string]struct {
		prepare func(*pair)
		change  func(*relationship.Create)
		reason  string
	}{
		"a name with ..": {nil, func(c *relationship.Create) { c.Name = "../x" }, failure.ReasonInvalidName},
		"no image":       {func(p *pair) { p.images.missing = true }, nil, failure.ReasonImageMissing},
		"an image in use": {func(p *pair) {
			p.images.inUse = failure.New(failure.Precondition, failure.ReasonImageInUse, "pid 42 has it open")
		}, nil, failure.ReasonImageInUse},
		"no replica": {func(p *pair) { p.replica.down = true }, nil, failure.ReasonReplicaUnreachable},
		"a replica that refuses": {func(p *pair) {
			p.replica.refuse = failure.New(failure.Exists, failure.ReasonBaseExists, "a file lies there")
		}, nil, failure.ReasonBaseExists},
		"a replica's format that is none": {nil, func(c *relationship.Create) {
			c.Spec.Disks[0].ReplicaFormat = "vmdk"
		}, failure.ReasonUnsupported},
		"nothing to use": {nil, func(c *relationship.Create) { c.Spec.UseExisting = true }, failure.ReasonBaseMissing},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, p *pair) {
				if test.prepare != nil {
					test.prepare(p)
				}
				a := p.start()
				defer a.stop()
				asked := spec()
				if test.change != nil {
					test.change(&asked)
				}
				_, err := a.Create(t.Context(), asked)
				wantReason(t, err, test.reason)
				synctest.Wait()
				if views := a.List(); len(views) != 0 || p.images.open != 0 {
					t.Fatalf("%d relationships and %d open images are left", len(views), p.images.open)
				}
			})
		})
	}
}

func TestOneImageIsNoTwoVMsDisk(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.enabled()
		defer a.stop()
		asked := spec()
		asked.Name = "web02"
		_, err := a.Create(t.Context(), asked)
		if found := wantReason(t, err, failure.ReasonAlreadyExists); !strings.Contains(found.Message, "web01") {
			t.Fatalf("it does not name the other: %v", found)
		}
	})
}

func TestValidateOnlyCreatesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.start()
		defer a.stop()
		asked := spec()
		asked.ValidateOnly = true
		if _, err := a.Create(t.Context(), asked); err != nil {
			t.Fatal(err)
		}
		if len(a.List()) != 0 || p.replica.exists {
			t.Fatal("something was created")
		}
		p.replica.refuse = failure.New(failure.Precondition, failure.ReasonBaseMissing, "nothing lies there")
		_, err := a.Create(t.Context(), asked)
		wantReason(t, err, failure.ReasonBaseMissing)
	})
}

func TestACreationInDoubtGoesOnWhenRepeated(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.start()
		defer a.stop()
		p.replica.refuse = unreachable()
		_, err := a.Create(t.Context(), spec())
		wantReason(t, err, failure.ReasonReplicaUnreachable)
		left := p.want(a, replication.Error)
		_, err = a.Start(t.Context(), "web01", relationship.Start{Kind: replication.KindInitial}, state.Request{})
		wantReason(t, err, failure.ReasonWrongState)
		p.replica.refuse = nil
		made, err := a.Create(t.Context(), spec())
		if err != nil || made.UID != left.UID || made.State != replication.ReadyForInitialReplication {
			t.Fatalf("%+v, %v", made.State, err)
		}
	})
}

func TestRemove(t *testing.T) {
	request := state.Request{Caller: "op", ID: "7", Method: "DeleteReplication"}
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		p.replica.set(func(r *replica) { r.down = true })
		_, err := a.Remove(t.Context(), "web01", relationship.Remove{})
		if found := wantReason(t, err, failure.ReasonReplicaUnreachable); !strings.Contains(found.Remedy, "--force") {
			t.Fatalf("no way out is named: %v", found)
		}
		p.replica.set(func(r *replica) { r.down = false })
		p.begin(a, replication.KindResync) // it goes on after the failed removal
		p.settle()
		if view := p.want(a, replication.Replicating); view.Resync.State != replication.ResyncDone {
			t.Fatalf("after a failed removal nothing goes on: %+v", view.Resync)
		}
		notes, err := a.Remove(t.Context(), "web01", relationship.Remove{Request: request})
		if err != nil || !p.replica.released || len(notes) != 1 {
			t.Fatalf("%v, %v", notes, err)
		}
		again, err := a.Remove(t.Context(), "web01", relationship.Remove{Request: request})
		if err != nil || !slices.Equal(again, notes) {
			t.Fatalf("the same request again: %v, %v", again, err)
		}
		_, err = a.Remove(t.Context(), "web01", relationship.Remove{})
		wantReason(t, err, failure.ReasonNotFound)
		if _, err := a.Create(t.Context(), spec()); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Resync("web01", ""); failure.Find(err).Reason != failure.ReasonNotFound {
			t.Fatalf("the history outlived its VM: %v", err)
		}
	})
}

func TestRemoveByForceWhileAResyncRuns(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.enabled()
		defer a.stop()
		p.replica.set(func(r *replica) { r.down = true })
		p.begin(a, replication.KindInitial)
		p.settle()
		notes, err := a.Remove(t.Context(), "web01", relationship.Remove{Force: true})
		if err != nil || len(notes) != 1 || !strings.Contains(notes[0], "not released") {
			t.Fatalf("%v, %v", notes, err)
		}
		if len(a.List()) != 0 {
			t.Fatal("it is still there")
		}
	})
}

func TestUpdateNeedsTheRevisionThatWasRead(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.enabled()
		defer a.stop()
		update := relationship.Update{Revision: 1, Labels: map[string]string{"tier": "gold"}, ReplicaAddress: "new:7443"}
		view, err := a.Update(t.Context(), "web01", update, state.Request{})
		if err != nil || view.Labels["tier"] != "gold" || view.Spec.ReplicaAddress != "new:7443" || view.Revision != 2 {
			t.Fatalf("%+v, %v", view.Record, err)
		}
		_, err = a.Update(t.Context(), "web01", update, state.Request{})
		if failure.Find(err).Class != failure.Conflict {
			t.Fatalf("an old revision gave %v", err)
		}
	})
}

func TestHistoryIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		var last replication.ID
		for range 60 {
			last = p.begin(a, replication.KindVerify).ID
			p.settle()
		}
		views, err := a.Resyncs("web01")
		if err != nil || len(views) != 50 || views[0].ID != last || views[0].Number != 61 || views[49].Number != 12 {
			t.Fatalf("%d resyncs, %v", len(views), err)
		}
		if _, err := a.Resync("web01", "nothing"); failure.Find(err).Reason != failure.ReasonNotFound {
			t.Fatalf("an unknown resync gave %v", err)
		}
	})
}

func TestFormatsAndTheChainAreRecorded(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		p.images.backing = []string{"/images/golden.raw"}
		a := p.start()
		defer a.stop()
		asked := spec()
		asked.Spec.Disks[0].Format, asked.Spec.Disks[0].ReplicaFormat = replication.FormatQCOW2, replication.FormatVHDX
		asked.Spec.Disks[0].Differencing = replication.DifferencingQCOW2
		view, err := a.Create(t.Context(), asked)
		if err != nil {
			t.Fatal(err)
		}
		recorded := view.Spec.Disks[0]
		if !recorded.SameAs(asked.Spec.Disks[0]) || !slices.Equal(recorded.Backing, p.images.backing) {
			t.Errorf("recorded %+v", recorded)
		}
		place := p.replica.prepared[0]
		if place.ID != "root" || place.Format != replication.FormatVHDX || place.Differencing != replication.DifferencingQCOW2 {
			t.Errorf("the replica prepared %+v", place)
		}
		if _, err := a.Create(t.Context(), asked); err != nil {
			t.Errorf("asked for again: %v", err)
		}
		asked.Spec.Disks[0].ReplicaFormat = replication.FormatRaw
		_, err = a.Create(t.Context(), asked)
		wantReason(t, err, failure.ReasonAlreadyExists)
		if !strings.Contains(err.Error(), "vhdx") || !strings.Contains(err.Error(), "raw") {
			t.Errorf("%v does not name the formats", err)
		}
	})
}
