package nbd

import (
	"bytes"
	"encoding/binary"
	"slices"
	"unicode/utf8"
)

// validName is a name as the protocol allows it.
func validName(raw []byte) (string, bool) {
	if len(raw) > maxString || !utf8.Valid(raw) || bytes.IndexByte(raw, 0) >= 0 {
		return "", false
	}
	return string(raw), true
}

// fields takes an option's data apart; once something is missing all that follows is zero and bad stays set.
type fields struct {
	raw []byte
	bad bool
}

func (f *fields) take(n uint32) []byte {
	if f.bad || uint64(n) > uint64(len(f.raw)) {
		f.raw, f.bad = nil, true
		return nil
	}
	taken := f.raw[:n]
	f.raw = f.raw[n:]
	return taken
}

func (f *fields) uint16() uint16 {
	if raw := f.take(2); raw != nil {
		return binary.BigEndian.Uint16(raw)
	}
	return 0
}

func (f *fields) uint32() uint32 {
	if raw := f.take(4); raw != nil {
		return binary.BigEndian.Uint32(raw)
	}
	return 0
}

// text is a string behind its length.
func (f *fields) text() string {
	text, ok := validName(f.take(f.uint32()))
	f.bad = f.bad || !ok
	return text
}

// whole says whether everything was there and nothing is left.
func (f *fields) whole() bool { return !f.bad && len(f.raw) == 0 }

// parseInfo decodes the data of INFO and GO; false when it is malformed.
func parseInfo(data []byte) (name string, wanted []uint16, ok bool) {
	f := fields{raw: data}
	name = f.text()
	count := f.uint16()
	for ; count > 0 && !f.bad; count-- {
		wanted = append(wanted, f.uint16())
	}
	return name, wanted, f.whole()
}

// parseQueries decodes the data of LIST_META_CONTEXT and SET_META_CONTEXT; false when it is malformed.
func parseQueries(data []byte) (name string, queries []string, ok bool) {
	f := fields{raw: data}
	name = f.text()
	count := f.uint32()
	for ; count > 0 && !f.bad; count-- {
		queries = append(queries, f.text())
	}
	return name, queries, f.whole()
}

// list answers LIST.
func (c *conn) list(a *answer, data []byte) {
	switch {
	case len(data) > 0:
		a.add(repErrInvalid)
		return
	case c.server.options.List == nil:
		a.add(repErrPolicy)
		return
	}
	for _, name := range c.server.options.List() {
		a.add(repServer, binary.BigEndian.AppendUint32(nil, uint32(len(name))), []byte(name))
	}
	a.add(repAck)
}

// info answers INFO and GO. A GO that succeeds enters the transmission.
func (c *conn) info(a *answer, data []byte) {
	name, wanted, ok := parseInfo(data)
	if !ok {
		a.add(repErrInvalid)
		return
	}
	var export Export
	var err error
	if a.opt == optGo {
		if err = c.enter(name); err == nil {
			export = c.volume.Export
		}
	} else if export, err = c.server.options.Lookup(name); err == nil {
		defer c.server.options.Release(export)
	}
	if err != nil {
		c.log.Warn("an export was refused", "name", name, "error", err)
		a.add(repErrUnknown)
		return
	}
	c.describe(a, name, export, wanted)
	a.add(repAck)
}

// describe appends the information of INFO and GO.
func (c *conn) describe(a *answer, name string, export Export, wanted []uint16) {
	basic := binary.BigEndian.AppendUint16(nil, infoExport)
	basic = binary.BigEndian.AppendUint64(basic, uint64(export.Size()))
	basic = binary.BigEndian.AppendUint16(basic, c.transmissionFlags(export.ReadOnly()))
	a.add(repInfo, basic)
	if slices.Contains(wanted, infoName) {
		a.add(repInfo, binary.BigEndian.AppendUint16(nil, infoName), []byte(name))
	}
	if d, ok := export.(Describer); ok && slices.Contains(wanted, infoDescription) {
		a.add(repInfo, binary.BigEndian.AppendUint16(nil, infoDescription), []byte(d.Description()))
	}
	if slices.Contains(wanted, infoBlockSize) {
		sizes := binary.BigEndian.AppendUint16(nil, infoBlockSize)
		for _, size := range []uint32{blockMin, blockPreferred, MaxPayload} {
			sizes = binary.BigEndian.AppendUint32(sizes, size)
		}
		a.add(repInfo, sizes)
	}
}

// metaContext answers LIST_META_CONTEXT and SET_META_CONTEXT: base:allocation is the only context. SET replaces
// what was chosen, by failing too.
func (c *conn) metaContext(a *answer, data []byte) {
	setting := a.opt == optSetMetaContext
	if setting {
		c.allocation = false
	}
	name, queries, ok := parseQueries(data)
	if !ok || !c.structured {
		a.add(repErrInvalid)
		return
	}
	export, err := c.server.options.Lookup(name)
	if err != nil {
		a.add(repErrUnknown)
		return
	}
	c.server.options.Release(export)
	found := slices.Contains(queries, contextAllocation)
	var id uint32
	if setting {
		c.allocation, c.allocationOf, id = found, name, contextID
	} else {
		found = found || len(queries) == 0 || slices.Contains(queries, contextBase)
	}
	if found {
		a.add(repMetaContext, binary.BigEndian.AppendUint32(nil, id), []byte(contextAllocation))
	}
	a.add(repAck)
}
