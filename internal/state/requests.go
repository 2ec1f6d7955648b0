package state

import (
	"crypto/sha256"
	"fmt"
	"time"

	"vmreplica/internal/failure"
)

// Requests remembers what mutating calls were answered, so that a caller who lost the answer may ask again. The
// answer is kept in the transaction that does the work: either both are durable or neither is. Failures are not
// kept; nothing of them is stored.
type Requests struct {
	// Clock is the present time.
	Clock func() time.Time
	// Keep is how long an answer is kept, Limit how many are; the oldest go first. Zero means 24 h and 10,000.
	Keep  time.Duration
	Limit int
}

// Request names one call. Two calls with the same Caller and ID are the same one; Method and Body must agree.
type Request struct {
	// Caller is who asks, so that two callers' IDs do not meet.
	Caller string
	// ID is the caller's choice, at most 128 bytes; empty means that the call is not remembered.
	ID     string
	Method string
	// Body is the request itself in a form that is the same each time.
	Body []byte
}

// answered is the record of a call.
type answered struct {
	Method      string
	Fingerprint [sha256.Size]byte
	Time        time.Time
	Sequence    uint64
	Answer      []byte
}

// ageEntry is the key of an answered record, found by its age.
type ageEntry struct {
	Key  string
	Time time.Time
}

var (
	requestTable = Table[answered]{Bucket: "requests"}
	requestAges  = Table[ageEntry]{Bucket: "request-ages"}
)

const (
	defaultKeep      = 24 * time.Hour
	defaultLimit     = 10_000
	maxRequestID     = 128
	prunedPerRequest = 16
)

// Do runs work and keeps its answer, or answers what the same request was answered before. Another request under
// the same ID is Invalid. An error of work is returned as it is, and the caller must let the transaction fail.
func (r Requests) Do(tx Tx, request Request, work func() ([]byte, error)) ([]byte, error) {
	if request.ID == "" {
		return work()
	}
	if len(request.ID) > maxRequestID {
		return nil, failure.New(failure.Invalid, failure.ReasonInvalidArgument,
			"the request id has %d bytes and may have %d", len(request.ID), maxRequestID)
	}
	key := request.Caller + "\x00" + request.ID
	fingerprint := sha256.Sum256(request.Body)
	known, found, err := requestTable.Get(tx, key)
	if err != nil {
		return nil, err
	}
	if found && !r.expired(known.Time) {
		if known.Method != request.Method || known.Fingerprint != fingerprint {
			return nil, failure.New(failure.Invalid, failure.ReasonInvalidArgument,
				"request id %q was used for another request, %s at %s", request.ID, known.Method,
				known.Time.UTC().Format(time.RFC3339)).Try("Use a new request id for a new request.")
		}
		return known.Answer, nil
	}
	answer, err := work()
	if err != nil {
		return nil, err
	}
	if found {
		if err := requestAges.Delete(tx, ageKey(known.Sequence)); err != nil {
			return nil, err
		}
	}
	record := answered{Method: request.Method, Fingerprint: fingerprint, Time: r.Clock(), Answer: answer}
	return answer, r.keep(tx, key, record)
}

func (r Requests) keep(tx Tx, key string, record answered) (err error) {
	if record.Sequence, err = tx.NextSequence(requestAges.Bucket); err != nil {
		return err
	}
	if err := r.prune(tx, record.Sequence); err != nil {
		return err
	}
	if err := requestAges.Put(tx, ageKey(record.Sequence), ageEntry{key, record.Time}); err != nil {
		return err
	}
	return requestTable.Put(tx, key, record)
}

// prune drops a few of the oldest answers that are expired or too many. One request adds one and may drop more,
// so the bound holds.
func (r Requests) prune(tx Tx, newest uint64) error {
	limit := r.Limit
	if limit == 0 {
		limit = defaultLimit
	}
	last := ageKey(newest - min(newest, uint64(limit)))
	var drop []Row[ageEntry]
	for row := range requestAges.Rows(tx, "") {
		if row.Err != nil {
			return row.Err
		}
		if len(drop) == prunedPerRequest || row.Key > last && !r.expired(row.Record.Time) {
			break
		}
		drop = append(drop, row)
	}
	for _, row := range drop {
		if err := requestAges.Delete(tx, row.Key); err != nil {
			return err
		}
		if err := requestTable.Delete(tx, row.Record.Key); err != nil {
			return err
		}
	}
	return nil
}

func (r Requests) expired(answered time.Time) bool {
	keep := r.Keep
	if keep == 0 {
		keep = defaultKeep
	}
	return r.Clock().Sub(answered) >= keep
}

// ageKey sorts as the number does.
func ageKey(sequence uint64) string { return fmt.Sprintf("%020d", sequence) }
