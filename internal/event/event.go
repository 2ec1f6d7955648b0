// Package event is what happened on an agent, in order: kept, listed, watched and logged from one record.
//
// Vocabulary. An Event is a sentence with figures. Its ID is Hyper-V's number where Hyper-V has one for the same
// thing, ours from 60001; its Type is a stable word; the catalogue holds both together. Its Sequence rises by one
// with each event of an agent and is never used again.
//
// Invariants. An event and the change of state that it tells of are one transaction: after a crash both are there
// or neither. What is logged or given to a watcher is durable. Recording never waits for a watcher: a watcher
// reads the store at its own pace, and is told when that no longer holds what it has not read. Events are kept
// for 90 days, and 100,000 of them at most.
//
//	err := store.Update(func(tx state.Tx) error {
//		recorded, err = log.Append(tx, event.ResyncStarted(…))
//		return errors.Join(err, save(tx, …))
//	})
//	if err == nil {
//		log.Publish(recorded)
//	}
package event

import (
	"log/slog"
	"strings"
	"time"
)

// Severity is how much an event matters.
type Severity uint8

// Severities.
const (
	Information Severity = iota + 1
	Warning
	Error
)

func (s Severity) String() string {
	switch s {
	case Warning:
		return "Warning"
	case Error:
		return "Error"
	default:
		return "Information"
	}
}

func (s Severity) level() slog.Level {
	switch s {
	case Warning:
		return slog.LevelWarn
	case Error:
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}

// Event is something that happened. Sequence and Time are set when it is recorded.
type Event struct {
	// ID is the event's number: 29242, 29244 …, or from 60001.
	ID       uint32    `json:"id"`
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time"`
	Severity Severity  `json:"severity"`
	// Type is a stable word: resync.started, resync.finished …
	Type string `json:"type"`
	VM   string `json:"vm,omitempty"`
	Disk string `json:"disk,omitempty"`
	// Message is a sentence.
	Message string `json:"message"`
	// Details are the event's figures: blocks_sent, bytes, duration, result …
	Details map[string]string `json:"details,omitempty"`
}

// maxText bounds a message and each detail, in bytes: a peer may have had a word in them.
const maxText = 4096

// bounded is the event with texts that are valid UTF-8 and no longer than maxText.
func (e Event) bounded() Event {
	e.Message = boundedText(e.Message)
	details := make(map[string]string, len(e.Details))
	for name, value := range e.Details {
		details[boundedText(name)] = boundedText(value)
	}
	e.Details = details
	return e
}

func boundedText(text string) string {
	if len(text) > maxText {
		text = text[:maxText]
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}
