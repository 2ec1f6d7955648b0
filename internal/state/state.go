// Package state keeps an agent's records: one bbolt file, one bucket for each kind of record, JSON values.
//
// Invariants. An Update is atomic and durable when it returns nil; when it returns an error nothing of it is
// kept, but for STATE_FAILED: then the commit is in doubt, the store answers nothing any more, and a restart finds
// it done or not. What a record says to be on disk was synced before the Update that says so. One process has the file
// open at a time. A lost state file means adoption and a full compare, never trust.
//
// Tests put the in-memory store of statetest in its place: there a transaction is one atomic, durable step in
// the same recorder that durabletest keeps for files, so every order of file writes against commits is tried.
package state

import "iter"

// Store is a set of buckets. Update runs fn in a write transaction, View in a read transaction that sees one
// instant. fn must not keep the Tx or the byte slices it got from it.
type Store interface {
	Update(fn func(Tx) error) error
	View(fn func(Tx) error) error
	Close() error
}

// Tx is one transaction.
type Tx interface {
	// Get is the value of key, nil when there is none.
	Get(bucket, key string) []byte
	Put(bucket, key string, value []byte) error
	// Delete is no error when there is no such key.
	Delete(bucket, key string) error
	// Entries yields the bucket's entries with key >= from, in key order.
	Entries(bucket, from string) iter.Seq2[string, []byte]
	// NextSequence raises the bucket's counter and returns it, from 1.
	NextSequence(bucket string) (uint64, error)
}
