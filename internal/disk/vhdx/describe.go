package vhdx

import (
	"strconv"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
)

// Describe says what a file of any kind says of itself, as it is after its log was replayed. It writes nothing.
func Describe(file durable.File) (disk.Info, error) {
	c, err := inspect(file)
	if err != nil {
		return disk.Info{}, err
	}
	info := disk.Info{
		Format: "vhdx", Kind: c.kind(), SizeBytes: c.size, FileBytes: c.physical, LogicalSectorSize: int(c.sector),
		UnitBytes: c.block, Identity: c.header.dataWrite, Dirty: c.overlay != nil,
	}
	if c.layer {
		parent := c.metadata.locator.parent()
		info.Parent = &parent
	}
	info.Properties = c.properties()
	return info, nil
}

func (c *container) kind() string {
	switch {
	case c.layer:
		return "differencing"
	case c.metadata.fixed:
		return "fixed"
	default:
		return "dynamic"
	}
}

func (c *container) properties() []disk.Property {
	properties := []disk.Property{
		{Name: "Creator", Value: c.creator},
		{Name: "PhysicalSectorSize", Value: strconv.FormatInt(c.metadata.physicalSector, 10)},
		{Name: "VirtualDiskId", Value: c.metadata.diskID.String()},
		{Name: "FileWriteGuid", Value: c.header.fileWrite.String()},
		{Name: "DataWriteGuid", Value: c.header.dataWrite.String()},
		{Name: "LogGuid", Value: c.header.logGUID.String()},
		{Name: "LogLength", Value: strconv.FormatInt(c.header.log.length, 10)},
		{Name: "SequenceNumber", Value: strconv.FormatUint(c.header.sequence, 10)},
	}
	if c.overlay != nil {
		properties = append(properties, disk.Property{
			Name: "log entries to replay", Value: strconv.Itoa(c.overlay.sequence.entries)})
	}
	if c.layer {
		for _, pair := range c.metadata.locator.pairs {
			properties = append(properties, disk.Property{Name: pair.key, Value: pair.value})
		}
	}
	return properties
}
