package vhd

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
)

// Describe says what a VHD file says of itself, whatever its kind. It changes nothing and leaves the file open.
func Describe(file durable.File) (disk.Info, error) {
	f, err := readFooters(file)
	if err != nil {
		return disk.Info{}, fmt.Errorf("describe VHD: %w", err)
	}
	info := disk.Info{
		Format: formatName, Kind: f.chosen.kind().String(), SizeBytes: f.chosen.size(), FileBytes: f.fileSize,
		LogicalSectorSize: sectorSize, Identity: f.chosen.identity(), Properties: f.chosen.properties(),
	}
	if f.chosen.kind() == fixedDisk {
		return info, nil
	}
	h, err := readHeader(file, f)
	if err != nil {
		return disk.Info{}, fmt.Errorf("describe VHD: %w", err)
	}
	info.UnitBytes = h.block()
	info.Dirty = h.recovered || f.end == nil || f.copy == nil || *f.end != *f.copy
	info.Properties = append(info.Properties,
		disk.Property{Name: "Table Offset", Value: fmt.Sprint(h.bat())},
		disk.Property{Name: "Max Table Entries", Value: fmt.Sprint(h.entries())})
	if f.chosen.kind() == differencingDisk {
		parent, err := readParent(file, h.header, f.fileSize)
		if err != nil {
			return disk.Info{}, fmt.Errorf("describe VHD: %w", err)
		}
		info.Parent = &parent
	}
	return info, nil
}

// properties are the fields that tell where the file comes from.
func (f *footer) properties() []disk.Property {
	order := binary.BigEndian
	made := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(
		time.Duration(order.Uint32(f[footerTimeStamp:])) * time.Second)
	version := order.Uint32(f[footerCreatorVer:])
	cylinders := order.Uint16(f[footerGeometry:])
	return []disk.Property{
		{Name: "Creator Application", Value: tag(f[footerCreator : footerCreator+4])},
		{Name: "Creator Version", Value: fmt.Sprintf("%d.%d", version>>16, version&0xffff)},
		{Name: "Creator Host OS", Value: tag(f[footerCreatorOS : footerCreatorOS+4])},
		{Name: "Time Stamp", Value: made.Format(time.RFC3339)},
		{Name: "Original Size", Value: fmt.Sprint(order.Uint64(f[footerOriginal:]))},
		{Name: "Disk Geometry", Value: fmt.Sprintf("%d/%d/%d", cylinders, f[footerGeometry+2], f[footerGeometry+3])},
		{Name: "Saved State", Value: fmt.Sprint(f[footerSavedState] != 0)},
	}
}

// tag is four characters, quoted where they are not printable.
func tag(p []byte) string {
	text := strings.TrimRight(string(p), " \x00")
	if quoted := fmt.Sprintf("%+q", text); quoted != `"`+text+`"` {
		return quoted
	}
	return text
}
