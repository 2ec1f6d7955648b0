package render

import vmreplicav1 "vmreplica/proto/vmreplica/v1"

// causes are why a resync is required, in a sentence each, and what to do about it.
var causes = map[vmreplicav1.ResyncCause]struct{ means, remedy string }{
	vmreplicav1.ResyncCause_RESYNC_CAUSE_IMAGE_MODIFIED: {
		"the image changed while nothing tracked its writes",
		"Resynchronize; start the machine only with what attach-info prints.",
	},
	vmreplicav1.ResyncCause_RESYNC_CAUSE_REVERTED: {
		"the volume or the VM was put back to an earlier state, so the replica may be the newer side",
		"Decide which side is right; if it is the primary: resync --force. It never starts by itself.",
	},
	vmreplicav1.ResyncCause_RESYNC_CAUSE_REPLICA_RECORD_MISMATCH: {
		"the replica is neither at what it acknowledged nor at what it was last sent, or its files changed",
		"Find out who wrote to the replica or put it back, then resynchronize.",
	},
	vmreplicav1.ResyncCause_RESYNC_CAUSE_PROOF_FAILED: {
		"the replica was proven to differ",
		"Resynchronize; when it comes back, test memory and storage of both hosts.",
	},
	vmreplicav1.ResyncCause_RESYNC_CAUSE_RESYNC_CANCELLED: {
		"a resync began and was cancelled, which made its baseline void",
		"Resynchronize when it suits.",
	},
	vmreplicav1.ResyncCause_RESYNC_CAUSE_HRL_OVER_LIMIT: {
		"more has accumulated than the HRL's limit, so comparing is cheaper than sending it",
		"Resynchronize; if it comes back, give the link more room, or raise it with set --hrl-limit.",
	},
	vmreplicav1.ResyncCause_RESYNC_CAUSE_HRL_WRITE_FAILED: {
		"the HRL could not be written, so not all writes are marked",
		"Look for errors and room of the state directory's storage, then resynchronize.",
	},
	vmreplicav1.ResyncCause_RESYNC_CAUSE_HRL_NOT_CLOSED_CLEANLY: {
		"the host was lost while the HRL was open, so the last writes may not be marked",
		"Resynchronize; after the loss of a host nothing else can make it sure.",
	},
	vmreplicav1.ResyncCause_RESYNC_CAUSE_TRACKING_LOST: {
		"tracking was lost: the HRL is missing, damaged or another disk's, or the image failed under it",
		"Look for errors of the storage in the host's log, then resynchronize.",
	},
}
