package nbd

import (
	"encoding/binary"
	"math/big"
	"testing"
	"unicode/utf8"
)

// FuzzHeader judges any header: what is let through lies inside the export, by arithmetic that cannot overflow, and
// has flags and a length that its command may have.
func FuzzHeader(f *testing.F) {
	f.Add(make([]byte, requestLen), int64(512), uint8(0))
	f.Add(binary.BigEndian.AppendUint32(make([]byte, requestLen-4), 1<<31), int64(1)<<62, uint8(7))
	f.Fuzz(func(t *testing.T, raw []byte, size int64, bits uint8) {
		if len(raw) < requestLen || size < 0 {
			return
		}
		h, ok := parseHeader(raw)
		if ok != (binary.BigEndian.Uint32(raw) == magicRequest) {
			t.Fatalf("%x taken for a request: %v", raw, ok)
		}
		terms := terms{size: size, readOnly: bits&1 != 0, structured: bits&2 != 0, allocation: bits&4 != 0}
		if h.judge(terms) != 0 {
			return
		}
		end := new(big.Int).Add(new(big.Int).SetUint64(h.offset), big.NewInt(int64(h.length)))
		if h.command != cmdFlush && end.Cmp(big.NewInt(size)) > 0 {
			t.Fatalf("%+v is let through to %d bytes", h, size)
		}
		switch h.command {
		case cmdWrite, cmdTrim, cmdWriteZeroes:
			if terms.readOnly {
				t.Fatalf("%+v is let through to a read-only export", h)
			}
		case cmdBlockStatus:
			if !terms.allocation {
				t.Fatalf("%+v is let through without a context", h)
			}
		case cmdRead, cmdFlush:
		default:
			t.Fatalf("%+v is let through", h)
		}
		if need := h.memory(); need > MaxPayload || h.command == cmdRead && need < int64(h.length) {
			t.Fatalf("%+v needs %d bytes", h, need)
		}
	})
}

// FuzzOptionData takes any data apart: what is accepted is, put together again, the same bytes.
func FuzzOptionData(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x04disk\x00\x01\x00\x03"))
	f.Add([]byte("\x00\x00\x00\x04disk\x00\x00\x00\x01\x00\x00\x00\x05base:"))
	f.Fuzz(func(t *testing.T, data []byte) {
		text := func(raw []byte, s string) []byte {
			if !utf8.ValidString(s) || len(s) > maxString {
				t.Fatalf("the name %q is accepted", s)
			}
			return append(binary.BigEndian.AppendUint32(raw, uint32(len(s))), s...)
		}
		if name, wanted, ok := parseInfo(data); ok {
			raw := binary.BigEndian.AppendUint16(text(nil, name), uint16(len(wanted)))
			for _, w := range wanted {
				raw = binary.BigEndian.AppendUint16(raw, w)
			}
			if string(raw) != string(data) {
				t.Fatalf("%x is read as %x", data, raw)
			}
		}
		if name, queries, ok := parseQueries(data); ok {
			raw := binary.BigEndian.AppendUint32(text(nil, name), uint32(len(queries)))
			for _, q := range queries {
				raw = text(raw, q)
			}
			if string(raw) != string(data) {
				t.Fatalf("%x is read as %x", data, raw)
			}
		}
	})
}
