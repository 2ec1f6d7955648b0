package vhdx

import (
	"bytes"
	"encoding/binary"
	"math"

	"vmreplica/internal/disk"
)

// metadata is what the metadata region says (MS-VHDX 2.6).
type metadata struct {
	block          int64
	fixed          bool // LeaveBlocksAllocated
	hasParent      bool
	size           int64
	diskID         guid
	logicalSector  int64
	physicalSector int64
	locator        *locator // nil without a parent
}

const (
	flagVirtualDisk = 2
	flagRequired    = 4

	parametersFixed     = 1
	parametersHasParent = 2
)

// item is an entry of the metadata table; offset is from the region's start.
type item struct {
	id             guid
	offset, length int64
	flags          uint32
}

// metadataItems is the metadata table.
type metadataItems []item

// parseItems reads a metadata table, of which p is metadataTable bytes, of a region of length bytes.
func parseItems(p []byte, length int64) (metadataItems, error) {
	order := binary.LittleEndian
	if len(p) < metadataTable || !bytes.HasPrefix(p, []byte("metadata")) {
		return nil, corrupt("its metadata table has no signature")
	}
	count := order.Uint16(p[10:])
	if count > maxTableEntries {
		return nil, corrupt("its metadata table has %d entries", count)
	}
	items := make(metadataItems, 0, count)
	seen := make(map[guid]bool, count)
	for i := range int(count) {
		entry := p[32+32*i:]
		it := item{getGUID(entry), int64(order.Uint32(entry[16:])), int64(order.Uint32(entry[20:])), order.Uint32(entry[24:])}
		empty := it.offset == 0 && it.length == 0
		switch {
		case seen[it.id]:
			return nil, corrupt("its metadata has item %s twice", it.id)
		case it.length > maxMetadataItem || it.length > length || it.offset > length-it.length,
			it.offset < metadataTable && !empty:
			return nil, corrupt("metadata item %s of %d bytes at %d lies outside its region", it.id, it.length, it.offset)
		}
		seen[it.id] = true
		items = append(items, it)
	}
	return items, items.checkKnown()
}

// checkKnown refuses a file that another program did not finish, and one that needs what is not known here.
func (m metadataItems) checkKnown() error {
	for _, it := range m {
		switch it.id {
		case itemIncomplete:
			return corrupt("the program that created it did not finish")
		case itemFileParameters, itemDiskSize, itemDiskID, itemLogicalSector, itemPhysicalSector, itemParentLocator,
			itemCHS, itemPMEMLabels:
		default:
			if it.flags&flagRequired != 0 {
				return unsupported("it needs the metadata item %s", it.id)
			}
		}
	}
	return nil
}

func (m metadataItems) find(id guid) (item, bool) {
	for _, it := range m {
		if it.id == id {
			return it, it.offset != 0
		}
	}
	return item{}, false
}

// encode is the table.
func (m metadataItems) encode() []byte {
	p := make([]byte, metadataTable)
	order := binary.LittleEndian
	copy(p, "metadata")
	order.PutUint16(p[10:], uint16(len(m)))
	for i, it := range m {
		entry := p[32+32*i:]
		putGUID(entry, it.id)
		order.PutUint32(entry[16:], uint32(it.offset))
		order.PutUint32(entry[20:], uint32(it.length))
		order.PutUint32(entry[24:], it.flags)
	}
	return p
}

// values are the items that every file has: read gives an item's bytes.
func (m metadataItems) values(read func(item) ([]byte, error)) (*metadata, error) {
	var values metadata
	order := binary.LittleEndian
	known := []struct {
		id     guid
		name   string
		length int64
		set    func(p []byte)
	}{
		{itemFileParameters, "file parameters", 8, func(p []byte) {
			values.block = int64(order.Uint32(p))
			values.fixed = order.Uint32(p[4:])&parametersFixed != 0
			values.hasParent = order.Uint32(p[4:])&parametersHasParent != 0
		}},
		{itemDiskSize, "virtual disk size", 8, func(p []byte) {
			values.size = int64(min(order.Uint64(p), math.MaxInt64))
		}},
		{itemDiskID, "virtual disk id", guidSize, func(p []byte) { values.diskID = getGUID(p) }},
		{itemLogicalSector, "logical sector size", 4, func(p []byte) { values.logicalSector = int64(order.Uint32(p)) }},
		{itemPhysicalSector, "physical sector size", 4, func(p []byte) { values.physicalSector = int64(order.Uint32(p)) }},
	}
	for _, k := range known {
		it, found := m.find(k.id)
		if !found || it.length < k.length {
			return nil, corrupt("its metadata lacks the %s", k.name)
		}
		it.length = k.length
		p, err := read(it)
		if err != nil {
			return nil, err
		}
		k.set(p)
	}
	return &values, values.check()
}

func (v *metadata) check() error {
	if err := disk.CheckSize(v.size, int(v.logicalSector)); err != nil {
		return corrupt("%w", err)
	}
	if v.physicalSector != 512 && v.physicalSector != 4096 {
		return corrupt("a physical sector of %d bytes", v.physicalSector)
	}
	if err := checkBlockSize(v.block); err != nil {
		return corrupt("%w", err)
	}
	return nil
}

// content is an item with what it holds.
type content struct {
	id    guid
	flags uint32
	bytes []byte
}

// contents are the items of a new file.
func (v *metadata) contents() []content {
	order := binary.LittleEndian
	var flags uint32
	if v.fixed {
		flags |= parametersFixed
	}
	if v.hasParent {
		flags |= parametersHasParent
	}
	id := make([]byte, guidSize)
	putGUID(id, v.diskID)
	const ofDisk = flagVirtualDisk | flagRequired
	all := []content{
		{itemFileParameters, flagRequired, order.AppendUint32(order.AppendUint32(nil, uint32(v.block)), flags)},
		{itemDiskSize, ofDisk, order.AppendUint64(nil, uint64(v.size))},
		{itemDiskID, ofDisk, id},
		{itemLogicalSector, ofDisk, order.AppendUint32(nil, uint32(v.logicalSector))},
		{itemPhysicalSector, ofDisk, order.AppendUint32(nil, uint32(v.physicalSector))},
	}
	if v.locator != nil {
		all = append(all, content{itemParentLocator, flagRequired, v.locator.encode()})
	}
	return all
}

// newItems is the table of a new file.
func (v *metadata) newItems() metadataItems {
	var items metadataItems
	at := int64(metadataTable)
	for _, c := range v.contents() {
		items = append(items, item{c.id, at, int64(len(c.bytes)), c.flags})
		at += int64(len(c.bytes))
	}
	return items
}

// encodeItems is the region's content of a new file: the table, and the items behind it.
func (v *metadata) encodeItems() []byte {
	p := v.newItems().encode()
	for _, c := range v.contents() {
		p = append(p, c.bytes...)
	}
	return p
}
