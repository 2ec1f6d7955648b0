package event_test

import (
	"strings"
	"testing"
	"time"

	"vmreplica/internal/event"
	"vmreplica/internal/replication"
)

func TestCatalogue(t *testing.T) {
	figures := func(result string) event.Figures {
		return event.Figures{BlocksSent: 3, Bytes: 12288, Duration: 90 * time.Second, Result: result}
	}
	tests := []struct {
		event    event.Event
		id       uint32
		severity event.Severity
		// holds are a part of the message and details in the form name=value.
		holds []string
	}{
		{event.ResyncStarted(replication.KindResync, "web01", "root", 0, 64), 29242, event.Information,
			[]string{"from block 0 to 64", "start_block=0", "end_block=64"}},
		{event.ResyncFinished(replication.KindResync, "web01", "root", figures(event.ResultCompleted)), 29244, event.Information,
			[]string{"ended (completed) after 1m30s: 3 blocks with 12.0 KiB of differing content.", "blocks_sent=3", "bytes=12288", "duration=1m30s", "result=completed"}},
		{event.ResyncFinished(replication.KindResync, "web01", "root", event.Figures{BlocksSent: 1, Bytes: 1, Result: event.ResultCompleted}),
			29244, event.Information, []string{": 1 block with 1 B of differing content."}},
		{event.ResyncFinished(replication.KindResync, "web01", "root", figures(event.ResultCancelled)), 29244, event.Warning, nil},
		{event.ResyncFinished(replication.KindResync, "web01", "root", figures(event.ResultFailed)), 29244, event.Error, nil},
		{event.SuspendedByError("web01", "root", "IMAGE_MISSING", "the image is missing."), 32086, event.Error,
			[]string{"the image is missing.", "reason=IMAGE_MISSING"}},
		{event.WillRetry("web01", "", "REPLICA_UNREACHABLE", "No answer", time.Minute), 32315, event.Warning,
			[]string{"No answer. It is tried again in 1m0s.", "retry_in=1m0s"}},
		{event.OperationFailed("web01", "", "StartResync", "WRONG_STATE", "it is suspended"), 33680, event.Error,
			[]string{"operation=StartResync", "reason=WRONG_STATE"}},
		{event.ResyncStarted(replication.KindInitial, "web01", "root", 0, 64), 60001, event.Information, []string{"initial replication"}},
		{event.ResyncFinished(replication.KindInitial, "web01", "root", figures(event.ResultCompleted)), 60002, event.Information, nil},
		{event.ResyncStarted(replication.KindVerify, "web01", "root", 0, 64), 60003, event.Information, []string{"verification"}},
		{event.VerifyFinished("web01", "root", true, 0, 1234567890), 60004, event.Information, []string{"are equal, proven in 1.2s.", "result=equal"}},
		{event.VerifyFinished("web01", "root", false, 2, time.Second), 60004, event.Error,
			[]string{"differ in 2 blocks", "result=different", "blocks_differing=2"}},
		{event.VerifyFinished("web01", "root", false, 0, time.Second), 60004, event.Error,
			[]string{"differ in at least 1 block.", "result=different"}},
		{event.MergeHindered("web01", "root", "STORAGE_FULL", "No room.", false), 60031, event.Warning,
			[]string{"its merge on the replica waits: No room.", "reason=STORAGE_FULL"}},
		{event.MergeHindered("web01", "root", "BASE_MISSING", "No base.", true), 60031, event.Error, []string{"without being done: No base."}},
		{event.MergeRecovered("web01"), 60032, event.Information, nil},
		{event.ResyncTakenUp("web01", "resync"), 60033, event.Information, []string{"the resync goes on where"}},
		{event.CycleFailed("web01", "root", "PROOF_FAILED", "Another root."), 32022, event.Warning,
			[]string{"stay marked: Another root.", "reason=PROOF_FAILED"}},
		{event.TrackingStarted("web01", 2), 60034, event.Information, []string{"The writes to 2 disks are tracked", "disks=2"}},
		{event.ChurnExceedsLink("web01", 2048, 1024), 60035, event.Warning,
			[]string{"writes 2.0 KiB/s and 1.0 KiB/s are sent.", "written_bytes_per_second=2048", "sent_bytes_per_second=1024"}},
		{event.Superseded("web01", "failed over."), 60036, event.Error, []string{"for good: failed over."}},
		{event.FailoverStarted("web01", "abc", 2), 60042, event.Warning, []string{"point=abc", "term=2"}},
		{event.FailoverFinished("web01", "abc", time.Second), 60043, event.Information, []string{"point=abc", "duration=1s"}},
		{event.VerifyFinished("web01", "root", false, 1, time.Second), 60004, event.Error, []string{"differ in 1 block."}},
		{event.ResyncSuspended("web01", ""), 60006, event.Warning, []string{"keeps its position."}},
		{event.ResyncSuspended("web01", "asked"), 60006, event.Warning, []string{"asked."}},
		{event.ResyncResumed("web01"), 60007, event.Information, nil},
		{event.ResyncCancelled("web01"), 60008, event.Warning, nil},
		{event.PassRestarted("web01", "root", "its size was 1"), 60009, event.Warning, []string{"evidence=its size was 1"}},
		{event.CommitInDoubt("web01", "no answer"), 60011, event.Warning, nil},
		{event.ResyncRequired("web01", "root", replication.CauseImageModified, "it was written to"), 60013, event.Error,
			[]string{"Resynchronization is required for the virtual machine web01: it was written to. Resume replication",
				"cause=ImageModified", "evidence=it was written to"}},
		{event.ConnectionLost("web01", "replica:7443", "timeout"), 60014, event.Warning, []string{"peer=replica:7443"}},
		{event.ConnectionRecovered("web01", "replica:7443", 4, time.Minute), 60015, event.Information, []string{"attempts=4"}},
		{event.MergeStarted("web01", "root", 5), 60016, event.Information, []string{"bytes=5"}},
		{event.MergeFinished("web01", "root", 5, time.Second), 60017, event.Information, []string{"duration=1s"}},
		{event.ReplicaPrepared("web01", "spiffe://a", 2), 60018, event.Information, []string{"disks=2"}},
		{event.ReplicationRemoved("web01", "replica:7443"), 60019, event.Information, nil},
		{event.ReplicationSuspended("web01", ""), 60021, event.Warning, []string{"Replication was suspended."}},
		{event.ReplicationSuspended("web01", "night"), 60021, event.Warning, []string{"suspended: night.", "reason=night"}},
		{event.ReplicationResumed("web01"), 60022, event.Information, nil},
		{event.StorageFull("web01", "root", "/storage", 7), 60023, event.Error, []string{"free_bytes=7"}},
		{event.StorageRecovered("web01", "root", "/storage", 7), 60024, event.Information, nil},
		{event.ImageInUse("web01", "root", "/images/a is open in qemu (12)"), 60025, event.Warning, []string{"qemu (12).", "reason=IMAGE_IN_USE"}},
		{event.BaseAdopted("web01", "root", "/storage/a"), 60026, event.Information, []string{"path=/storage/a"}},
		{event.CertificateReloaded("spiffe://a", time.Unix(0, 0)), 60027, event.Information, []string{"not_after=1970-01-01T00:00:00Z"}},
		{event.CertificateRejected("/tls", "no key"), 60028, event.Error, nil},
		{event.AuthorizationCreated("a/*", "a"), 60029, event.Information, []string{"pattern=a/*"}},
		{event.AuthorizationDeleted("a/*"), 60030, event.Information, []string{"pattern=a/*"}},
		{event.New("never.heard", "", "", "of", nil), 60000, event.Information, nil},
	}
	types := map[uint32]string{}
	for _, test := range tests {
		e := test.event
		if e.ID != test.id || e.Severity != test.severity {
			t.Errorf("%s has number %d and is %v, want %d, %v", e.Type, e.ID, e.Severity, test.id, test.severity)
		}
		if other, known := types[e.ID]; known && other != e.Type {
			t.Errorf("%s and %s share a number", other, e.Type)
		}
		types[e.ID] = e.Type
		text := e.Message
		for name, value := range e.Details {
			text += "\n" + name + "=" + value + "\n"
		}
		for _, part := range test.holds {
			if !strings.Contains(text, part) {
				t.Errorf("%s does not hold %q: %s", e.Type, part, text)
			}
		}
		if !strings.HasSuffix(e.Message, ".") || strings.HasSuffix(e.Message, "..") || e.Message[:1] != strings.ToUpper(e.Message[:1]) && e.VM != "" {
			t.Errorf("%s has no sentence for a message: %s", e.Type, e.Message)
		}
	}
}
