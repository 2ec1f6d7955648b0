package authorization

import (
	"vmreplica/internal/failure"
	"vmreplica/internal/state"
	"vmreplica/transport"
)

// Book is the entries of a replica. Its methods may be called concurrently.
type Book struct {
	store   state.Store
	rows    state.Table[Entry]
	devices DeviceCheck
}

// NewBook keeps entries in the store's bucket "authorizations"; devices says which devices may be mapped.
func NewBook(store state.Store, devices DeviceCheck) *Book {
	return &Book{store: store, rows: state.Table[Entry]{Bucket: "authorizations"}, devices: devices}
}

// Check says what is wrong with an entry, but for others beside it: INVALID_ARGUMENT, INVALID_NAME, PATH_OUTSIDE.
func (b *Book) Check(entry Entry) error { return entry.check(b.devices) }

// Create adds a checked entry. ALREADY_EXISTS names the entry that it overlaps.
func (b *Book) Create(tx state.Tx, entry Entry) error {
	for row := range b.rows.Rows(tx, "") {
		if row.Err != nil {
			return row.Err
		}
		if err := entry.conflict(row.Record); err != nil {
			return err
		}
	}
	return b.rows.Put(tx, entry.Pattern, entry)
}

// conflict says why two entries cannot stand beside each other.
func (e Entry) conflict(other Entry) error {
	if e.overlaps(other) {
		return failure.New(failure.Exists, failure.ReasonAlreadyExists,
			"the entry %s exists and admits some of the same primaries as %s", other.Pattern, e.Pattern).
			Try("Remove one of them, or narrow the pattern.")
	}
	for _, mine := range e.Devices {
		for _, theirs := range other.Devices {
			if mine.Device == theirs.Device {
				return failure.New(failure.Exists, failure.ReasonAlreadyExists, "%s is mapped by the entry %s",
					mine.Device, other.Pattern).On(mine.VM, mine.Disk)
			}
		}
	}
	return nil
}

// Get is the entry of that pattern; NOT_FOUND when there is none.
func (b *Book) Get(pattern string) (Entry, error) {
	var entry Entry
	err := b.store.View(func(tx state.Tx) error {
		var err error
		entry, err = b.get(tx, pattern)
		return err
	})
	return entry, err
}

func (b *Book) get(tx state.Tx, pattern string) (Entry, error) {
	entry, found, err := b.rows.Get(tx, pattern)
	if err == nil && !found {
		err = failure.New(failure.NotFound, failure.ReasonNotFound, "there is no entry %.300s", pattern)
	}
	return entry, err
}

// List is every entry, by pattern.
func (b *Book) List() ([]Entry, error) {
	var entries []Entry
	err := b.store.View(func(tx state.Tx) error {
		entries = nil
		for row := range b.rows.Rows(tx, "") {
			if row.Err != nil {
				return row.Err
			}
			entries = append(entries, row.Record)
		}
		return nil
	})
	return entries, err
}

// Update changes quota and devices of an entry by fn.
func (b *Book) Update(tx state.Tx, pattern string, fn func(*Entry)) (Entry, error) {
	entry, err := b.get(tx, pattern)
	if err != nil {
		return entry, err
	}
	fn(&entry)
	if err := b.Check(entry); err != nil {
		return entry, err
	}
	if err := b.rows.Delete(tx, pattern); err != nil {
		return entry, err
	}
	return entry, b.Create(tx, entry)
}

// Delete removes an entry; NOT_FOUND when there is none.
func (b *Book) Delete(tx state.Tx, pattern string) error {
	if _, err := b.get(tx, pattern); err != nil {
		return err
	}
	return b.rows.Delete(tx, pattern)
}

// Match is the entry that admits the identity; NOT_AUTHORIZED when none does.
func (b *Book) Match(identity transport.Identity) (Entry, error) {
	entries, err := b.List()
	if err != nil {
		return Entry{}, err
	}
	for _, entry := range entries {
		if entry.Admits(identity) {
			return entry, nil
		}
	}
	return Entry{}, failure.New(failure.Denied, failure.ReasonNotAuthorized, "the replica does not admit %s", identity).
		Try("On the replica: vmreplica authorize %s", identity.Name)
}

// CheckQuota answers QUOTA_EXCEEDED when more bytes beside the used ones would pass the entry's quota.
func (e Entry) CheckQuota(used, more int64) error {
	if e.QuotaBytes == 0 || (more <= e.QuotaBytes && used <= e.QuotaBytes-more) {
		return nil
	}
	return failure.New(failure.Exhausted, failure.ReasonQuotaExceeded,
		"the entry %s may hold %d bytes, holds %d and %d more are asked for", e.Pattern, e.QuotaBytes, used, more).
		Try("Raise the quota of the entry or remove replicas.")
}
