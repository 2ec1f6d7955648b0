package vhd

import (
	"encoding/binary"
	"path"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

// The codes of the locators that are read and written, and the most that is read of one's data.
const (
	relativeCode    = "W2ru"
	absoluteCode    = "W2ku"
	maxLocatorBytes = 64 << 10
)

// locator is an entry of the header's table. space and length are bytes, as Windows has them; the specification
// says sectors of space.
type locator struct {
	code                  string
	space, length, offset int64
}

func (h *header) locator(i int) locator {
	p := h[headerLocators+i*locatorSize:]
	order := binary.BigEndian
	return locator{
		code: string(p[:4]), space: int64(order.Uint32(p[4:])), length: int64(order.Uint32(p[8:])),
		offset: int64(min(order.Uint64(p[16:]), 1<<62)),
	}
}

func (h *header) setLocator(i int, l locator) {
	p := h[headerLocators+i*locatorSize:]
	order := binary.BigEndian
	copy(p[:4], l.code)
	order.PutUint32(p[4:], uint32(l.space))
	order.PutUint32(p[8:], uint32(l.length))
	order.PutUint32(p[12:], 0)
	order.PutUint64(p[16:], uint64(l.offset))
}

// inUse says whether the entry is one at all.
func (l locator) inUse() bool { return l.code != "\x00\x00\x00\x00" }

// inside says whether the locator's data lies in a file of that size and is of a length that is read.
func (l locator) inside(fileSize int64) bool {
	return l.length <= maxLocatorBytes && l.offset >= headerAt+headerSize && l.offset <= fileSize-l.length
}

// readParent is the parent that the header names; the zero Parent when it names none. A locator whose data lies
// outside the file names nothing.
func readParent(file durable.File, h *header, fileSize int64) (disk.Parent, error) {
	parent := disk.Parent{Identity: h.parent()}
	for i := range locators {
		l := h.locator(i)
		if l.code != relativeCode && l.code != absoluteCode || !l.inside(fileSize) {
			continue
		}
		data := make([]byte, l.length)
		if err := readFull(file, data, l.offset); err != nil {
			return disk.Parent{}, err
		}
		name := slashed(decodeUTF16(data, binary.LittleEndian))
		if l.code == relativeCode {
			parent.Name = strings.TrimPrefix(name, "./")
		} else {
			parent.Path = name
		}
	}
	if parent.Name == "" {
		if name := slashed(h.parentName()); name != "" {
			parent.Name = path.Base(name)
		}
	}
	if parent != (disk.Parent{}) {
		parent.Format = formatName
	}
	return parent, nil
}

// formatName is the format's name in a Parent and an Info.
const formatName = "vhd"

// parentName is the header's field of that name.
func (h *header) parentName() string {
	return decodeUTF16(h[headerParentName:headerParentName+2*maxNameUnits], binary.BigEndian)
}

func slashed(name string) string   { return strings.ReplaceAll(name, `\`, "/") }
func unslashed(name string) string { return strings.ReplaceAll(name, "/", `\`) }

// decodeUTF16 ends at the first zero.
func decodeUTF16(p []byte, order binary.ByteOrder) string {
	units := make([]uint16, 0, len(p)/2)
	for ; len(p) >= 2; p = p[2:] {
		unit := order.Uint16(p)
		if unit == 0 {
			break
		}
		units = append(units, unit)
	}
	return string(utf16.Decode(units))
}

func encodeUTF16(text string, order binary.AppendByteOrder) []byte {
	var p []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		p = order.AppendUint16(p, unit)
	}
	return p
}

// encodedParent is a parent as the file has it.
type encodedParent struct {
	name, relative, absolute []byte
}

// encodeParent refuses what the format cannot hold.
func encodeParent(parent disk.Parent) (*encodedParent, error) {
	if parent.Format != formatName {
		return nil, invalidParent("a differencing VHD stands on a VHD, not on %s", parent.Format)
	}
	for _, name := range []string{parent.Name, parent.Path} {
		if !utf8.ValidString(name) || strings.ContainsAny(name, "\\\x00") {
			return nil, invalidParent("the parent's name %q cannot be written as a Windows path", name)
		}
	}
	if parent.Name == "" || strings.HasPrefix(parent.Name, "/") {
		return nil, invalidParent("the parent's name %q is not relative to the differencing disk", parent.Name)
	}
	encoded := &encodedParent{
		name:     encodeUTF16(path.Base(parent.Name), binary.BigEndian),
		relative: encodeUTF16(`.\`+unslashed(parent.Name), binary.LittleEndian),
		absolute: encodeUTF16(unslashed(parent.Path), binary.LittleEndian),
	}
	if strings.HasPrefix(parent.Name, "../") {
		encoded.relative = encodeUTF16(unslashed(parent.Name), binary.LittleEndian)
	}
	if len(encoded.name) >= 2*maxNameUnits || len(encoded.relative) > relativeBytes-sectorSize ||
		len(encoded.absolute) > absoluteBytes {
		return nil, invalidParent("the parent's name is too long for a VHD header: %q", parent.Name)
	}
	return encoded, nil
}

func invalidParent(format string, args ...any) error {
	return failure.New(failure.Invalid, failure.ReasonInvalidName, format, args...)
}
