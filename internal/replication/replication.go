// Package replication holds the words and tables that both agents and the command line share: names, ids,
// states, causes, and what may follow what. It does nothing.
package replication

import (
	"crypto/rand"
	"encoding/hex"
	"regexp"
	"time"

	"vmreplica/internal/failure"
)

// ID is 128 random bits as 32 hexadecimal digits: a uid, a resync, a lineage, a cut. Empty means none.
type ID string

// NewID mints an ID. It never repeats.
func NewID() ID {
	var bits [16]byte
	rand.Read(bits[:]) // never fails: crypto/rand ends the program instead
	return ID(hex.EncodeToString(bits[:]))
}

var idPattern = regexp.MustCompile(`^[0-9a-f]{32}$`)

// Valid says whether the ID has its form; the empty one does not.
func (id ID) Valid() bool { return idPattern.MatchString(string(id)) }

// Short is the first eight digits, for messages.
func (id ID) Short() string { return string(id[:min(8, len(id))]) }

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// CheckName refuses a VM or disk name outside [A-Za-z0-9][A-Za-z0-9._-]{0,62}; what says which kind it is.
func CheckName(what, name string) error {
	if namePattern.MatchString(name) {
		return nil
	}
	if len(name) > 80 {
		name = name[:80] + "…"
	}
	return failure.New(failure.Invalid, failure.ReasonInvalidName, "%s name %q is not allowed", what, name).
		Try("Use 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit.")
}

// Spec is what the operator asked for.
type Spec struct {
	Disks          []DiskSpec
	ReplicaAddress string
	UseExisting    bool
	// Interval is how often a tracked machine's changes are sent; zero in records of before it could be chosen.
	Interval time.Duration
	// RecoveryPoints is how many hourly points the replica keeps.
	RecoveryPoints int
	AutoResync     AutoResync
	// HRLLimitPercent is how much may accumulate, of the VM's total disk size, before a resync is required; 0 is no limit.
	HRLLimitPercent int
	// QMPSocket is the machine's monitor; empty when it is not known.
	QMPSocket string
}

// CycleInterval is the interval, or what stands for none.
func (s Spec) CycleInterval() time.Duration {
	if s.Interval == 0 {
		return DefaultInterval
	}
	return s.Interval
}

// Health is how the relationship stands.
type Health uint8

// Healths, from best to worst.
const (
	HealthNormal Health = iota + 1
	HealthWarning
	HealthCritical
)

// HealthReason is one reason for the present health.
type HealthReason struct {
	Code    string
	Health  Health
	Message string
	Remedy  string
	Since   time.Time
	Disk    string
}

// Worst is the worst health among the reasons; Normal when there are none.
func Worst(reasons []HealthReason) Health {
	worst := HealthNormal
	for _, reason := range reasons {
		worst = max(worst, reason.Health)
	}
	return worst
}
