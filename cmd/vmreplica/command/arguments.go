package command

import (
	"math"
	"path"
	"strconv"
	"strings"

	"vmreplica/internal/api"
	"vmreplica/internal/disk/format"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// diskDefaults are what a --disk that does not say otherwise has: words for formats, empty where none is given.
type diskDefaults struct{ format, replicaFormat, differencing string }

// parseDisk reads PATH[,id=N][,format=F][,replica-format=F]. A comma in the path is doubled, as QEMU has it. The path
// is the agent's, so it must be absolute; the id is the file's name unless given.
func parseDisk(text string, defaults diskDefaults) (*vmreplicav1.DiskSpec, error) {
	parts := splitCommas(text)
	disk := &vmreplicav1.DiskSpec{Path: parts[0]}
	if !path.IsAbs(disk.Path) && !windowsAbsolute(disk.Path) {
		return nil, misused("the disk's path %q is not absolute", disk.Path).
			Try("Give the path as it is on the primary's host: --disk /images/web01.img")
	}
	disk.Id = disk.Path[strings.LastIndexAny(disk.Path, `/\`)+1:]
	for _, option := range parts[1:] {
		key, value, _ := strings.Cut(option, "=")
		switch key {
		case "id":
			disk.Id = value
		case "format":
			defaults.format = value
		case "replica-format":
			defaults.replicaFormat = value
		default:
			return nil, misused("--disk has no option %q", key).
				Try("Give --disk PATH[,id=NAME][,format=F][,replica-format=F]; a comma in PATH is doubled.")
		}
	}
	if err := replication.CheckName("disk", disk.Id); err != nil {
		return nil, misused("%w", err).Try("Name the disk %s: --disk %s,id=NAME", disk.Path, withoutID(parts))
	}
	if err := defaults.on(disk); err != nil {
		return nil, failure.Locate(err, "", disk.Id)
	}
	return disk, nil
}

// withoutID is a --disk as it was typed, less its id.
func withoutID(parts []string) string {
	var kept []string
	for _, part := range parts {
		if !strings.HasPrefix(part, "id=") {
			kept = append(kept, strings.ReplaceAll(part, ",", ",,"))
		}
	}
	return strings.Join(kept, ",")
}

// on sets the formats of a disk.
func (d diskDefaults) on(disk *vmreplicav1.DiskSpec) (err error) {
	if d.format == "" {
		if suggested := format.Guess(disk.Path); suggested != "" && suggested != replication.FormatRaw {
			return misused("the name of %s suggests %s, and no format is stated", disk.Path, suggested).
				Try("State --format %s, or --format raw if the file's own bytes are the disk.", suggested)
		}
		d.format = string(replication.FormatRaw)
	}
	if disk.Format, err = parseFormat(d.format); err != nil {
		return err
	}
	if d.replicaFormat != "" {
		if disk.ReplicaFormat, err = parseFormat(d.replicaFormat); err != nil {
			return err
		}
	}
	if err := replication.CheckDifferencing(replication.Differencing(d.differencing)); err != nil {
		return misused("%w", err).Try("Give --differencing qcow2, or leave it out for the base's own differencing format.")
	}
	disk.DifferencingFormat = api.DifferencingToProto(replication.Differencing(d.differencing))
	return nil
}

func parseFormat(text string) (vmreplicav1.DiskFormat, error) {
	f := replication.Format(text)
	if !f.Known() {
		return 0, misused("the disk format %q is not known", text).
			Try("Give one of %s; a block device is raw.", formatNames)
	}
	return api.FormatToProto(f), nil
}

// windowsAbsolute says whether a path is absolute on an agent that runs on Windows.
func windowsAbsolute(text string) bool {
	return len(text) > 3 && text[1] == ':' && strings.ContainsRune(`/\`, rune(text[2]))
}

// splitCommas splits at commas that are not doubled, and makes doubled ones single.
func splitCommas(text string) []string {
	parts := []string{""}
	for i := 0; i < len(text); i++ {
		last := len(parts) - 1
		switch {
		case text[i] != ',':
			parts[last] += string(text[i])
		case i+1 < len(text) && text[i+1] == ',':
			parts[last] += ","
			i++
		default:
			parts = append(parts, "")
		}
	}
	return parts
}

// parseDisks reads every --disk.
func parseDisks(texts []string, defaults diskDefaults) ([]*vmreplicav1.DiskSpec, error) {
	var disks []*vmreplicav1.DiskSpec
	seen := map[string]string{}
	for _, text := range texts {
		disk, err := parseDisk(text, defaults)
		if err != nil {
			return nil, err
		}
		if other, taken := seen[disk.GetId()]; taken {
			return nil, misused("%s and %s would both be disk %s", other, disk.GetPath(), disk.GetId()).
				Try("Name one of them otherwise: --disk PATH,id=NAME")
		}
		seen[disk.GetId()] = disk.GetPath()
		disks = append(disks, disk)
	}
	return disks, nil
}

// sizeUnits are the units of sizes. The bare letters are binary, as in qemu-img.
var sizeUnits = map[string]float64{
	"": 1, "B": 1,
	"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50,
	"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "PiB": 1 << 50,
	"kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15,
}

// parseSize reads bytes, as in 1.5TiB, 500G or 4096; none is 0.
func parseSize(text string) (int64, error) {
	if text == "none" {
		return 0, nil
	}
	digits := strings.TrimRight(text, "BKMGTPikb")
	unit, known := sizeUnits[strings.TrimSpace(text[len(digits):])]
	number, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	bytes := number * unit
	if !known || err != nil || !(bytes >= 0 && bytes < math.MaxInt64) {
		return 0, misused("%q is no size", text).Try("Give bytes with a unit, as in 50MiB, 2TiB or 500GB; none is no limit.")
	}
	return int64(bytes), nil
}

// parseRate reads bytes a second, as in 50MiB/s.
func parseRate(text string) (int64, error) {
	bytes, err := parseSize(strings.TrimSuffix(text, "/s"))
	if err != nil {
		return 0, misused("%q is no rate", text).Try("Give bytes a second, as in 50MiB/s or 6MB/s; none is no limit.")
	}
	return bytes, nil
}

// parseLabels reads KEY=VALUE pairs.
func parseLabels(texts []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, misused("%q is no label", text).Try("Give --label KEY=VALUE.")
		}
		labels[key] = value
	}
	return labels, nil
}

// parseDevice reads VM/DISK=/dev/….
func parseDevice(text string) (*vmreplicav1.DeviceMapping, error) {
	disk, device, ok := strings.Cut(text, "=")
	vm, id, named := strings.Cut(disk, "/")
	if !ok || !named || vm == "" || id == "" || !path.IsAbs(device) {
		return nil, misused("%q maps no device", text).Try("Give --device VM/DISK=/dev/DEVICE.")
	}
	return &vmreplicav1.DeviceMapping{Vm: vm, Disk: id, Device: device}, nil
}

// shellWord is text as a shell takes it for one word.
func shellWord(text string) string {
	if text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./_-", r)
	}) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
