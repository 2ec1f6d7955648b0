package state

import (
	"encoding/json"
	"fmt"
)

// Setting is one value that an operator changes while the agent runs. It is kept under Name as JSON.
type Setting[T any] struct {
	Name    string
	Default T
}

const settingsBucket = "settings"

// Get is the setting's value, its default while it was never set.
func (s Setting[T]) Get(tx Tx) (T, error) {
	value, found, err := Table[json.RawMessage]{Bucket: settingsBucket}.Get(tx, s.Name)
	if err != nil || !found {
		return s.Default, err
	}
	set := s.Default // a field that the stored value does not know keeps its default
	if err := json.Unmarshal(value, &set); err != nil {
		return s.Default, fmt.Errorf("decode setting %s: %w", s.Name, err)
	}
	return set, nil
}

// Set stores the value.
func (s Setting[T]) Set(tx Tx, value T) error {
	return Table[T]{Bucket: settingsBucket}.Put(tx, s.Name, value)
}
