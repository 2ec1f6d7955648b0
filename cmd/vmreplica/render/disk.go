package render

import (
	"fmt"

	"vmreplica/internal/disk"
)

// DiskInfo is what is shown of an image.
type DiskInfo struct {
	Path string
	disk.Info
	// Unreadable says why the rest is not known; empty when it is. Sums are of the extents of each kind, in bytes.
	// HostBytes is what the file takes on its filesystem; -1 when that cannot be known.
	Unreadable string
	Sums       map[disk.Kind]int64
	HostBytes  int64
}

// kinds are the kinds of extents in words, in their order.
var kinds = []struct {
	kind    disk.Kind
	word    string
	meaning string
}{
	{disk.Data, "data", "Data"},
	{disk.Zero, "zero", "Zeros, allocated"},
	{disk.Unmapped, "unmapped", "Unmapped"},
	{disk.Absent, "absent", "Left to the parent"},
}

func kindWord(k disk.Kind) string {
	for _, known := range kinds {
		if known.kind == k {
			return known.word
		}
	}
	return none
}

// diskParent is a parent for programs.
type diskParent struct {
	Name     string `json:"name"`
	Path     string `json:"path"`
	Format   string `json:"format"`
	Identity string `json:"identity"`
}

// DiskInfo writes what an image says of itself.
func (p Printer) DiskInfo(i DiskInfo) error {
	var parent *diskParent
	if i.Parent != nil {
		parent = &diskParent{i.Parent.Name, i.Parent.Path, i.Parent.Format, identity(i.Parent.Identity)}
	}
	properties := map[string]string{}
	for _, property := range i.Properties {
		properties[property.Name] = property.Value
	}
	extents := map[string]int64{}
	for kind, sum := range i.Sums {
		extents[kindWord(kind)+"Bytes"] = sum
	}
	return p.Value(struct {
		Path               string            `json:"path"`
		Format             string            `json:"format"`
		Kind               string            `json:"kind"`
		SizeBytes          int64             `json:"sizeBytes"`
		LogicalSectorBytes int               `json:"logicalSectorBytes"`
		UnitBytes          int64             `json:"unitBytes"`
		FileBytes          int64             `json:"fileBytes"`
		HostBytes          int64             `json:"hostBytes"`
		Identity           string            `json:"identity"`
		Dirty              bool              `json:"dirty"`
		Parent             *diskParent       `json:"parent"`
		Extents            map[string]int64  `json:"extents"`
		Unreadable         string            `json:"unreadable"`
		Properties         map[string]string `json:"properties"`
	}{
		i.Path, i.Format, i.Kind, i.SizeBytes, i.LogicalSectorSize, i.UnitBytes, i.FileBytes, i.HostBytes,
		identity(i.Identity), i.Dirty, parent, extents, i.Unreadable, properties,
	}, func(page *Page) { page.diskInfo(i) })
}

// identity is empty where there is none.
func identity(id disk.Identity) string {
	if id == disk.None {
		return ""
	}
	return id.String()
}

func (p *Page) diskInfo(i DiskInfo) {
	p.section(i.Path)
	p.fact("Format", join(", ", i.Format, i.Kind))
	p.fact("Size", exact(i.SizeBytes))
	p.fact("Logical sector", fmt.Sprintf("%d B", i.LogicalSectorSize))
	if i.UnitBytes > 0 {
		p.fact("Allocated in", exact(i.UnitBytes))
	}
	p.fact("File", exact(i.FileBytes))
	if i.HostBytes >= 0 {
		p.fact("Space on the host", exact(i.HostBytes))
	}
	p.fact("Identity", identity(i.Identity))
	if i.Dirty {
		p.fact("Not closed", "its last user did not close it; it is read as after a repair, and not written to")
	}
	p.fact("Not read", i.Unreadable)
	if i.Parent != nil {
		p.section("Parent, as the header names it")
		p.fact("Name", i.Parent.Name)
		p.fact("Path", i.Parent.Path)
		p.fact("Format", i.Parent.Format)
		p.fact("Identity", identity(i.Parent.Identity))
	}
	if i.Unreadable == "" {
		p.section("Allocation")
		for _, k := range kinds {
			if sum, counted := i.Sums[k.kind]; counted {
				p.fact(k.meaning, exact(sum))
			}
		}
	}
	if len(i.Properties) > 0 {
		p.section("Header")
	}
	for _, property := range i.Properties {
		p.fact(property.Name, property.Value)
	}
}

// exact is a size in a unit and in bytes.
func exact(bytes int64) string {
	if bytes < 1024 {
		return Size(bytes)
	}
	return fmt.Sprintf("%s (%d bytes)", Size(bytes), bytes)
}

// severities are those of findings in words.
var severities = map[disk.Severity]string{disk.Leaked: "leaked", disk.Damaged: "damaged"}

// Finding writes one inconsistency: a line, a line of JSON or a YAML document.
func (p Printer) Finding(f disk.Finding) error {
	if p.ForMachines() {
		return p.valueLine(struct {
			Severity string `json:"severity"`
			Message  string `json:"message"`
		}{severities[f.Severity], f.Message})
	}
	return p.write([]byte(Clean(fmt.Sprintf("%-8s %s", severities[f.Severity], f.Message)) + "\n"))
}

// Checked ends a check for people.
func (p Printer) Checked(path string, leaked, damaged int64) error {
	if p.ForMachines() {
		return nil
	}
	line := fmt.Sprintf("%s is consistent.", path)
	switch {
	case damaged > 0:
		line = fmt.Sprintf("%s is damaged: %s of damage, %s of leaked space.", path, plural(damaged, "finding"), plural(leaked, "finding"))
	case leaked > 0:
		line = fmt.Sprintf("%s is whole, with %s of leaked space.", path, plural(leaked, "finding"))
	}
	return p.write([]byte(Clean(line) + "\n"))
}

// MapHeading begins a table of extents. Its columns have fixed widths, because extents come one by one.
func (p Printer) MapHeading() error {
	if p.ForMachines() {
		return nil
	}
	return p.write([]byte(mapRow("OFFSET", "LENGTH", "KIND")))
}

// Extent writes one extent: a row, a line of JSON or a YAML document. Offset and length are bytes.
func (p Printer) Extent(e disk.Extent) error {
	if p.ForMachines() {
		return p.valueLine(struct {
			Offset int64  `json:"offset"`
			Length int64  `json:"length"`
			Kind   string `json:"kind"`
		}{e.Offset, e.Length, kindWord(e.Kind)})
	}
	return p.write([]byte(mapRow(fmt.Sprint(e.Offset), fmt.Sprint(e.Length), kindWord(e.Kind))))
}

func mapRow(offset, length, kind string) string {
	return fmt.Sprintf("%15s  %15s  %s\n", offset, length, kind)
}
