package qcow2

import (
	"fmt"
	"strconv"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
)

// Describe says what the header of a qcow2 file says, of images too that are neither read nor written here. Nothing
// else is opened.
func Describe(file durable.File) (disk.Info, error) {
	size, err := file.Size()
	if err != nil {
		return disk.Info{}, fmt.Errorf("measure qcow2 image: %w", err)
	}
	h, err := readImageHeader(file, size)
	if err != nil {
		return disk.Info{}, err
	}
	info := disk.Info{
		Format: "qcow2", Kind: "dynamic", SizeBytes: h.size, FileBytes: size, LogicalSectorSize: sectorSize,
		UnitBytes: h.cluster, Dirty: h.incompatible&incompatibleDirty != 0, Properties: h.properties(),
	}
	if h.name != "" {
		info.Kind, info.Parent = "differencing", &disk.Parent{Name: h.name, Format: h.format}
	}
	return info, nil
}

// properties are the header's fields that are worth a line.
func (h *imageHeader) properties() []disk.Property {
	all := []disk.Property{
		{Name: "version", Value: strconv.FormatUint(uint64(h.version), 10)},
		{Name: "refcount_bits", Value: strconv.Itoa(1 << h.order)},
		{Name: "compression_type", Value: compressionName(h.compression)},
		{Name: "extended_l2", Value: strconv.FormatBool(h.extended)},
		{Name: "lazy_refcounts", Value: strconv.FormatBool(h.compatible&compatibleLazy != 0)},
		{Name: "corrupt", Value: strconv.FormatBool(h.incompatible&incompatibleCorrupt != 0)},
		{Name: "nb_snapshots", Value: strconv.FormatInt(h.snapshotCount, 10)},
	}
	if h.encryption != 0 {
		all = append(all, disk.Property{Name: "crypt_method", Value: encryptionName(h.encryption)})
	}
	if h.incompatible&incompatibleExternal != 0 {
		all = append(all, disk.Property{Name: "external data file", Value: "true"})
	}
	if h.bitmaps.count > 0 {
		value := strconv.FormatInt(h.bitmaps.count, 10)
		if h.autoclear&autoclearBitmaps == 0 {
			value += ", inconsistent"
		}
		all = append(all, disk.Property{Name: "nb_bitmaps", Value: value})
	}
	if unknown := h.incompatible &^ incompatibleKnown; unknown != 0 {
		all = append(all, disk.Property{Name: "incompatible_features", Value: fmt.Sprintf("%#x", h.incompatible)})
	}
	return all
}

func compressionName(kind byte) string {
	switch kind {
	case compressionDeflate:
		return "zlib"
	case compressionZstd:
		return "zstd"
	default:
		return strconv.Itoa(int(kind))
	}
}

func encryptionName(method uint32) string {
	switch method {
	case 1:
		return "AES"
	case 2:
		return "LUKS"
	default:
		return strconv.FormatUint(uint64(method), 10)
	}
}
