package event

// The types of events.
const (
	TypeResyncStarted     = "resync.started"
	TypeResyncFinished    = "resync.finished"
	TypeResyncInterrupted = "resync.interrupted"
	TypeOperationFailed   = "operation.failed"
	TypeSuspendedByError  = "replication.suspended_by_error"

	TypeInitialStarted  = "initial.started"
	TypeInitialFinished = "initial.finished"
	TypeVerifyStarted   = "verify.started"
	TypeVerifyFinished  = "verify.finished"

	TypeResyncScheduled = "resync.scheduled"
	TypeResyncSuspended = "resync.suspended"
	TypeResyncResumed   = "resync.resumed"
	TypeResyncCancelled = "resync.cancelled"
	TypePassRestarted   = "resync.restarted"
	TypeResyncRecovered = "resync.recovered"
	TypeCommitInDoubt   = "resync.in_doubt"
	TypeResyncCommitted = "resync.committed"
	TypeResyncRequired  = "resync.required"
	TypeResyncTakenUp   = "resync.taken_up"

	TypeConnectionLost      = "connection.lost"
	TypeConnectionRecovered = "connection.recovered"

	TypeMergeStarted  = "merge.started"
	TypeMergeFinished = "merge.finished"

	TypeMergeHindered  = "merge.hindered"
	TypeMergeRecovered = "merge.recovered"

	TypeFailoverStarted  = "failover.started"
	TypeFailoverFinished = "failover.finished"

	TypePointSealed     = "recovery_point.sealed"
	TypePointDropped    = "recovery_point.dropped"
	TypeTrackingStarted = "tracking.started"
	TypeCycleFailed     = "cycle.failed"
	TypeChurn           = "cycle.churn"
	TypeSuperseded      = "replication.superseded"

	TypeCreated         = "replication.created"
	TypeRemoved         = "replication.removed"
	TypeSettingsChanged = "replication.settings_changed"
	TypeSuspended       = "replication.suspended"
	TypeResumed         = "replication.resumed"

	TypeStorageFull      = "storage.full"
	TypeStorageRecovered = "storage.recovered"
	TypeImageInUse       = "image.in_use"
	TypeBaseAdopted      = "base.adopted"

	TypeCertificateReloaded = "certificate.reloaded"
	TypeCertificateRejected = "certificate.rejected"

	TypeAuthorizationCreated = "authorization.created"
	TypeAuthorizationDeleted = "authorization.deleted"
)

// entry is what the catalogue holds of a type.
type entry struct {
	id       uint32
	severity Severity
}

// catalogue gives each type its number: Hyper-V's below 60000, ours above. A number never changes its meaning,
// and one that is given up is not used again.
var catalogue = map[string]entry{
	TypeResyncStarted:     {29242, Information},
	TypeResyncFinished:    {29244, Information},
	TypeSuspendedByError:  {32086, Error},
	TypeResyncInterrupted: {32315, Warning},
	TypeOperationFailed:   {33680, Error},
	TypeCycleFailed:       {32022, Warning},

	TypeInitialStarted:       {60001, Information},
	TypeInitialFinished:      {60002, Information},
	TypeVerifyStarted:        {60003, Information},
	TypeVerifyFinished:       {60004, Information},
	TypeResyncScheduled:      {60005, Information},
	TypeResyncSuspended:      {60006, Warning},
	TypeResyncResumed:        {60007, Information},
	TypeResyncCancelled:      {60008, Warning},
	TypePassRestarted:        {60009, Warning},
	TypeResyncRecovered:      {60010, Information},
	TypeCommitInDoubt:        {60011, Warning},
	TypeResyncCommitted:      {60012, Information},
	TypeResyncRequired:       {60013, Error},
	TypeConnectionLost:       {60014, Warning},
	TypeConnectionRecovered:  {60015, Information},
	TypeMergeStarted:         {60016, Information},
	TypeMergeFinished:        {60017, Information},
	TypeCreated:              {60018, Information},
	TypeRemoved:              {60019, Information},
	TypeSettingsChanged:      {60020, Information},
	TypeSuspended:            {60021, Warning},
	TypeResumed:              {60022, Information},
	TypeStorageFull:          {60023, Error},
	TypeStorageRecovered:     {60024, Information},
	TypeImageInUse:           {60025, Warning},
	TypeBaseAdopted:          {60026, Information},
	TypeCertificateReloaded:  {60027, Information},
	TypeCertificateRejected:  {60028, Error},
	TypeAuthorizationCreated: {60029, Information},
	TypeAuthorizationDeleted: {60030, Information},
	TypeMergeHindered:        {60031, Warning},
	TypeMergeRecovered:       {60032, Information},
	TypeResyncTakenUp:        {60033, Information},
	TypeFailoverStarted:      {60042, Warning},
	TypeFailoverFinished:     {60043, Information},
	TypePointSealed:          {60040, Information},
	TypePointDropped:         {60041, Information},
	TypeTrackingStarted:      {60034, Information},
	TypeChurn:                {60035, Warning},
	TypeSuperseded:           {60036, Error},
}

// unlisted is the number of a type that the catalogue does not hold.
const unlisted = 60000

// The results that Details["result"] holds.
const (
	ResultCompleted = "completed"
	ResultCancelled = "cancelled"
	ResultFailed    = "failed"
	ResultEqual     = "equal"
	ResultDifferent = "different"
)

// New is an event of a type, with its number and severity from the catalogue. A result among the details that is
// not a success raises the severity. An empty vm or disk is none; a message without an end gets
// its full stop.
func New(typ, vm, disk, message string, details map[string]string) Event {
	known, listed := catalogue[typ]
	if !listed {
		known = entry{unlisted, Information}
	}
	severity := known.severity
	switch details["result"] {
	case ResultCancelled:
		severity = max(severity, Warning)
	case ResultFailed, ResultDifferent:
		severity = Error
	}
	return Event{
		ID: known.id, Severity: severity, Type: typ, VM: vm, Disk: disk, Message: sentence(message), Details: details,
	}
}
