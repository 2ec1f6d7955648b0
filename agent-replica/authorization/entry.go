// Package authorization is which primaries a replica accepts, where their disks land and how much they may hold.
//
// Vocabulary. An entry admits the identities that its pattern names: one primary, or all of a trust domain whose
// name begins alike. A trust group is the primaries between which a VM may move.
//
// Invariants. No identity matches two entries: one that would overlap another is refused. A subdirectory is names
// joined by '/', so that it stays below the storage directory. A device stands for a disk only where an entry maps
// it. Entries are durable before they admit anybody.
package authorization

import (
	"path"
	"regexp"
	"strings"
	"time"

	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	"vmreplica/transport"
)

// Entry admits primaries.
type Entry struct {
	// Pattern is spiffe://<trust-domain>/vmreplica/primary/<name>, where name may be or end in one '*'.
	Pattern string
	// Subdirectory lies below the storage directory; empty stands for the primary's name.
	Subdirectory string
	TrustGroup   string
	// QuotaBytes is what all disks of the entry may allocate, layers included; 0 means no limit.
	QuotaBytes int64
	Devices    []Device
	CreateTime time.Time
}

// Device is a block device that stands for a disk's file.
type Device struct{ VM, Disk, Device string }

// Expand is a pattern in full: a bare name is a primary of the replica's own trust domain.
func Expand(pattern, trustDomain string) string {
	if strings.Contains(pattern, "/") {
		return pattern
	}
	return transport.Identity{TrustDomain: trustDomain, Role: transport.RolePrimary, Name: pattern}.String()
}

// Admits says whether the entry's pattern names the identity.
func (e Entry) Admits(identity transport.Identity) bool {
	prefix, wildcard := strings.CutSuffix(e.Pattern, "*")
	if wildcard {
		return strings.HasPrefix(identity.String(), prefix)
	}
	return identity.String() == e.Pattern
}

// overlaps says whether some identity would match both.
func (e Entry) overlaps(other Entry) bool {
	mine, iAmWild := strings.CutSuffix(e.Pattern, "*")
	theirs, theyAreWild := strings.CutSuffix(other.Pattern, "*")
	switch {
	case iAmWild && theyAreWild:
		return strings.HasPrefix(mine, theirs) || strings.HasPrefix(theirs, mine)
	case iAmWild:
		return strings.HasPrefix(theirs, mine)
	case theyAreWild:
		return strings.HasPrefix(mine, theirs)
	default:
		return mine == theirs
	}
}

// Directory is where a VM of the identity lies, below the storage directory.
func (e Entry) Directory(identity transport.Identity, vm string) string {
	if e.Subdirectory == "" {
		return path.Join(identity.Name, vm)
	}
	return path.Join(e.Subdirectory, vm)
}

// Device is the device that stands for a disk; empty when its disk is a file.
func (e Entry) Device(vm, disk string) string {
	for _, mapped := range e.Devices {
		if mapped.VM == vm && mapped.Disk == disk {
			return mapped.Device
		}
	}
	return ""
}

var trustGroupPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{0,63}$`)

// DeviceCheck says why a device may not be mapped: it matches no pattern of the agent's start-up, or is none.
type DeviceCheck func(device string) error

func (e Entry) check(devices DeviceCheck) error {
	if err := checkPattern(e.Pattern); err != nil {
		return err
	}
	if e.Subdirectory != "" {
		if err := checkSubdirectory(e.Subdirectory); err != nil {
			return err
		}
	}
	if !trustGroupPattern.MatchString(e.TrustGroup) {
		return invalid("the trust group has other characters than letters, digits, '.', '_' and '-', or more than 63")
	}
	if e.QuotaBytes < 0 {
		return invalid("the quota is less than nothing")
	}
	return checkDevices(e.Devices, devices)
}

// checkPattern accepts an identity of a primary, or one whose name is or ends in '*'.
func checkPattern(pattern string) error {
	concrete := pattern
	if prefix, wildcard := strings.CutSuffix(pattern, "*"); wildcard {
		concrete = prefix + "x" // any name that it would admit
	}
	identity, err := transport.ParseIdentity(concrete)
	if err != nil {
		return invalid("the pattern is no identity: %w", err).
			Try("Name a primary, or all whose name begins alike: NAME, NAM*, * or spiffe://DOMAIN/vmreplica/primary/NAME.")
	}
	if identity.Role != transport.RolePrimary {
		return invalid("the pattern names a %s; only primaries are admitted", identity.Role)
	}
	return nil
}

func checkSubdirectory(subdirectory string) error {
	parts := strings.Split(subdirectory, "/")
	if len(parts) > 8 {
		return invalid("the storage subdirectory has more than 8 parts")
	}
	for _, part := range parts {
		if err := replication.CheckName("directory", part); err != nil {
			return err
		}
	}
	return nil
}

func checkDevices(mapped []Device, check DeviceCheck) error {
	disks, devices := map[[2]string]bool{}, map[string]bool{}
	for _, d := range mapped {
		if err := replication.CheckName("VM", d.VM); err != nil {
			return err
		}
		if err := replication.CheckName("disk", d.Disk); err != nil {
			return err
		}
		if disks[[2]string{d.VM, d.Disk}] || devices[d.Device] {
			return invalid("%s or its disk is mapped twice", d.Device).On(d.VM, d.Disk)
		}
		disks[[2]string{d.VM, d.Disk}], devices[d.Device] = true, true
		if err := check(d.Device); err != nil {
			return failure.Locate(err, d.VM, d.Disk)
		}
	}
	return nil
}

func invalid(format string, args ...any) *failure.Error {
	return failure.New(failure.Invalid, failure.ReasonInvalidArgument, format, args...)
}
