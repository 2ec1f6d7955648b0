package api

import (
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// Bounds of a request's spec: disks of a VM, and the length of a path in bytes.
const (
	maxDisks = 64
	maxPath  = 4096
)

// SpecToProto is what was asked, on the wire.
func SpecToProto(s replication.Spec) *vmreplicav1.ReplicationSpec {
	asked := &vmreplicav1.ReplicationSpec{ReplicaAddress: s.ReplicaAddress, UseExisting: s.UseExisting}
	for _, disk := range s.Disks {
		asked.Disks = append(asked.Disks, &vmreplicav1.DiskSpec{
			Id: disk.ID, Path: disk.Path, Format: FormatToProto(disk.Format), ReplicaFormat: FormatToProto(disk.BaseFormat()),
			DifferencingFormat: DifferencingToProto(disk.Differencing), Backing: cleanAll(disk.Backing),
		})
	}
	settingsToProto(asked, s)
	return asked
}

// SpecFromProto is what an operator asks for, with its form checked: 1 to 64 disks of different ids and paths,
// paths absolute and clean, formats stated, the replica's address host:port. A disk without an id is named after
// its file, and its replica has its format unless another is stated. Whether the paths may be opened is for the agent
// that opens them; what the images stand on is not asked for.
func SpecFromProto(asked *vmreplicav1.ReplicationSpec) (replication.Spec, error) {
	spec := replication.Spec{ReplicaAddress: asked.GetReplicaAddress(), UseExisting: asked.GetUseExisting()}
	if err := checkAddress(spec.ReplicaAddress); err != nil {
		return replication.Spec{}, err
	}
	if n := len(asked.GetDisks()); n == 0 || n > maxDisks {
		return replication.Spec{}, invalid("a virtual machine has 1 to %d disks, not %d", maxDisks, n)
	}
	ids, paths := map[string]bool{}, map[string]bool{}
	for _, given := range asked.GetDisks() {
		disk, err := diskFromProto(given)
		if err != nil {
			return replication.Spec{}, err
		}
		if ids[disk.ID] {
			return replication.Spec{}, invalid("two disks are called %s", disk.ID).Try("Name each disk with id=NAME.")
		}
		if paths[disk.Path] {
			return replication.Spec{}, invalid("%s is given twice", disk.Path).On("", disk.ID)
		}
		ids[disk.ID], paths[disk.Path] = true, true
		spec.Disks = append(spec.Disks, disk)
	}
	if err := settingsFromProto(&spec, asked); err != nil {
		return replication.Spec{}, err
	}
	return spec, nil
}

func diskFromProto(given *vmreplicav1.DiskSpec) (replication.DiskSpec, error) {
	disk := replication.DiskSpec{ID: given.GetId()}
	var err error
	if disk.Path, err = absolute(given.GetPath(), "Give the image's absolute path."); err != nil {
		return disk, err
	}
	if disk.ID == "" {
		disk.ID = filepath.Base(disk.Path)
	}
	if err := replication.CheckName("disk", disk.ID); err != nil {
		return disk, err
	}
	err = formatsFromProto(&disk, given)
	return disk, failure.Locate(err, "", disk.ID)
}

// absolute is a path of the agent's host, clean; remedy is for one that is not absolute.
func absolute(path, remedy string) (string, error) {
	if len(path) > maxPath || strings.ContainsRune(path, 0) || !filepath.IsAbs(path) {
		return "", invalid("the path %q is not absolute", clean(path, 256)).Try("%s", remedy)
	}
	return filepath.Clean(path), nil
}

func formatsFromProto(disk *replication.DiskSpec, given *vmreplicav1.DiskSpec) (err error) {
	if disk.Format, err = FormatFromProto(given.GetFormat()); err != nil {
		return err
	}
	disk.ReplicaFormat = disk.Format
	if asked := given.GetReplicaFormat(); asked != vmreplicav1.DiskFormat_DISK_FORMAT_UNSPECIFIED {
		if disk.ReplicaFormat, err = FormatFromProto(asked); err != nil {
			return err
		}
	}
	disk.Differencing, err = DifferencingFromProto(given.GetDifferencingFormat())
	return err
}

// cleanAll are paths of the host as the wire takes them.
func cleanAll(paths []string) []string {
	var cleaned []string
	for _, path := range paths {
		cleaned = append(cleaned, clean(path, maxPath))
	}
	return cleaned
}

func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err == nil && host != "" && len(address) <= 262 {
		if number, err := strconv.ParseUint(port, 10, 16); err == nil && number > 0 {
			return nil
		}
	}
	return invalid("the replica's address %q is not host:port", clean(address, 256)).
		Try("Give the name in the replica's certificate and its port, as in replica.example:7443.")
}

func invalid(format string, args ...any) *failure.Error {
	return failure.New(failure.Invalid, failure.ReasonInvalidArgument, format, args...)
}

// HealthReasonToProto is one reason on the wire.
func HealthReasonToProto(r replication.HealthReason) *vmreplicav1.HealthReason {
	return &vmreplicav1.HealthReason{
		Code: r.Code, Health: HealthToProto(r.Health), Message: clean(r.Message, maxMessage),
		Remedy: clean(r.Remedy, maxRemedy), Since: TimeToProto(r.Since), Disk: r.Disk,
	}
}

// TimeToProto is t on the wire; the zero time is unset.
func TimeToProto(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// TimeFromProto is a time from the wire, in UTC; zero when it is unset or out of range.
func TimeFromProto(t *timestamppb.Timestamp) time.Time {
	if !t.IsValid() {
		return time.Time{}
	}
	return t.AsTime()
}
