package vhdx

import (
	"encoding/binary"
	"strings"
	"unicode/utf16"

	"vmreplica/internal/disk"
	"vmreplica/internal/failure"
)

// The keys of a parent locator (MS-VHDX 2.6.2.6.3).
const (
	keyLinkage      = "parent_linkage"
	keyLinkage2     = "parent_linkage2"
	keyRelativePath = "relative_path"
	keyVolumePath   = "volume_path"
	keyAbsolutePath = "absolute_win32_path"
)

// locator is the parent locator: keys and values in their order.
type locator struct{ pairs []pair }

type pair struct{ key, value string }

const (
	locatorHeader = 20
	locatorEntry  = 12
	// maxLocatorPairs bounds what is believed: the specification has five keys.
	maxLocatorPairs = 256
	maxLocatorText  = 65535
)

// parseLocator reads a locator; one of another type than VHDX's own is refused.
func parseLocator(p []byte) (*locator, error) {
	order := binary.LittleEndian
	if len(p) < locatorHeader {
		return nil, corrupt("a parent locator of %d bytes", len(p))
	}
	if kind := getGUID(p); kind != locatorVHDX {
		return nil, unsupported("its parent locator has the type %s", kind)
	}
	count := int(order.Uint16(p[18:]))
	if count > maxLocatorPairs || len(p) < locatorHeader+count*locatorEntry {
		return nil, corrupt("a parent locator of %d entries in %d bytes", count, len(p))
	}
	l := &locator{}
	for i := range count {
		entry := p[locatorHeader+i*locatorEntry:]
		key, ok := locatorText(p, order.Uint32(entry), order.Uint16(entry[8:]))
		value, also := locatorText(p, order.Uint32(entry[4:]), order.Uint16(entry[10:]))
		if !ok || !also || l.has(key) {
			return nil, corrupt("entry %d of its parent locator", i)
		}
		l.pairs = append(l.pairs, pair{key, value})
	}
	return l, nil
}

func locatorText(p []byte, offset uint32, length uint16) (string, bool) {
	if length == 0 || length%2 != 0 || int64(offset)+int64(length) > int64(len(p)) {
		return "", false
	}
	units := make([]uint16, length/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(p[int(offset)+2*i:])
	}
	return string(utf16.Decode(units)), true
}

func (l *locator) encode() []byte {
	order := binary.LittleEndian
	p := make([]byte, locatorHeader+len(l.pairs)*locatorEntry)
	putGUID(p, locatorVHDX)
	order.PutUint16(p[18:], uint16(len(l.pairs)))
	add := func(text string) (offset, length int) {
		offset = len(p)
		for _, unit := range utf16.Encode([]rune(text)) {
			p = order.AppendUint16(p, unit)
		}
		return offset, len(p) - offset
	}
	for i, pair := range l.pairs {
		keyAt, keyLength := add(pair.key)
		valueAt, valueLength := add(pair.value)
		entry := p[locatorHeader+i*locatorEntry:]
		order.PutUint32(entry, uint32(keyAt))
		order.PutUint32(entry[4:], uint32(valueAt))
		order.PutUint16(entry[8:], uint16(keyLength))
		order.PutUint16(entry[10:], uint16(valueLength))
	}
	return p
}

func (l *locator) has(key string) bool {
	_, found := l.find(key)
	return found
}

func (l *locator) find(key string) (string, bool) {
	for _, pair := range l.pairs {
		if pair.key == key {
			return pair.value, true
		}
	}
	return "", false
}

func (l *locator) value(key string) string {
	value, _ := l.find(key)
	return value
}

// linkages are the identities that the parent may have.
func (l *locator) linkages() []guid {
	var found []guid
	for _, key := range []string{keyLinkage, keyLinkage2} {
		if g, ok := parseGUID(l.value(key)); ok {
			found = append(found, g)
		}
	}
	return found
}

// parent is what the locator says, the zero Parent when it says nothing.
func (l *locator) parent() disk.Parent {
	if l == nil || len(l.pairs) == 0 {
		return disk.Parent{}
	}
	p := disk.Parent{Format: "vhdx", Path: l.value(keyAbsolutePath)}
	p.Name = strings.ReplaceAll(strings.TrimPrefix(l.value(keyRelativePath), `.\`), `\`, "/")
	if p.Path == "" {
		p.Path = l.value(keyVolumePath)
	}
	if strings.HasPrefix(p.Path, `\`) && !strings.HasPrefix(p.Path, `\\`) {
		p.Path = strings.ReplaceAll(p.Path, `\`, "/")
	}
	p.Identity, _ = parseGUID(l.value(keyLinkage))
	return p
}

// locatorFor is the locator of a child of parent.
func locatorFor(parent disk.Parent) (*locator, error) {
	refuse := func(format string, args ...any) (*locator, error) {
		return nil, failure.New(failure.Invalid, failure.ReasonInvalidName, "the parent of a VHDX file: "+format, args...)
	}
	switch {
	case parent.Format != "vhdx":
		return refuse("a format of %q; it is a VHDX file itself", parent.Format)
	case parent.Identity == disk.None:
		return refuse("it has no identity")
	case parent.Name == "" || strings.ContainsAny(parent.Name, "/\\\x00"):
		return refuse("%q is no name of a file in the same directory", parent.Name)
	case strings.ContainsRune(parent.Path, 0):
		return refuse("its path holds a zero byte")
	}
	l := &locator{pairs: []pair{{keyLinkage, parent.Identity.String()}, {keyRelativePath, `.\` + parent.Name}}}
	if parent.Path != "" {
		l.pairs = append(l.pairs, pair{keyAbsolutePath, strings.ReplaceAll(parent.Path, "/", `\`)})
	}
	for _, pair := range l.pairs {
		if n := 2 * len(utf16.Encode([]rune(pair.value))); n > maxLocatorText {
			return refuse("the %s of %d bytes is longer than %d", pair.key, n, maxLocatorText)
		}
	}
	return l, nil
}
