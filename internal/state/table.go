package state

import (
	"encoding/json"
	"fmt"
	"iter"
)

// Table is a bucket whose values are T as JSON.
type Table[T any] struct{ Bucket string }

// Get reads one record; false when there is none.
func (t Table[T]) Get(tx Tx, key string) (T, bool, error) {
	var record T
	value := tx.Get(t.Bucket, key)
	if value == nil {
		return record, false, nil
	}
	if err := json.Unmarshal(value, &record); err != nil {
		return record, false, fmt.Errorf("decode %s/%s: %w", t.Bucket, key, err)
	}
	return record, true, nil
}

// Put writes one record.
func (t Table[T]) Put(tx Tx, key string, record T) error {
	value, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encode %s/%s: %w", t.Bucket, key, err)
	}
	return tx.Put(t.Bucket, key, value)
}

// Delete removes one record.
func (t Table[T]) Delete(tx Tx, key string) error { return tx.Delete(t.Bucket, key) }

// Row is one record of a table, or the error of reading it.
type Row[T any] struct {
	Key    string
	Record T
	Err    error
}

// Rows yields the records with key >= from, in key order.
func (t Table[T]) Rows(tx Tx, from string) iter.Seq[Row[T]] {
	return func(yield func(Row[T]) bool) {
		for key, value := range tx.Entries(t.Bucket, from) {
			row := Row[T]{Key: key}
			if err := json.Unmarshal(value, &row.Record); err != nil {
				row.Err = fmt.Errorf("decode %s/%s: %w", t.Bucket, key, err)
			}
			if !yield(row) {
				return
			}
		}
	}
}
