package nbd_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"vmreplica/internal/nbd"
)

const diskSize = 1 << 20

// writable and readonly are the transmission flags, without DF.
const (
	writableFlags = 1 | 1<<2 | 1<<3 | 1<<5 | 1<<6 | 1<<8 | 1<<11
	readOnlyFlags = 1 | 1<<1 | 1<<2 | 1<<3 | 1<<8
	dfFlag        = 1 << 7
)

func TestExportNameEntersTheTransmission(t *testing.T) {
	r := one(t, nbd.Options{}, newMemory(diskSize))
	for flags, padding := range map[uint32]int{0: 124, 1: 124, 2: 0, 3: 0} {
		c := connect(t, r)
		c.greet(flags)
		c.put("IHAVEOPT", uint32(optExportName), uint32(4), "disk")
		answer := c.take(10 + padding)
		if size := binary.BigEndian.Uint64(answer); size != diskSize {
			t.Errorf("flags %d: size %d", flags, size)
		}
		if got := binary.BigEndian.Uint16(answer[8:]); got != writableFlags {
			t.Errorf("flags %d: transmission flags %#x", flags, got)
		}
		c.inStep()
	}
}

func TestAHandshakeThatCannotBeAnsweredEndsTheConnection(t *testing.T) {
	header := func(option, length uint32) []byte { return pack("IHAVEOPT", option, length) }
	cases := map[string][]byte{
		"unknown client flags":         pack(uint32(1 << 2)),
		"high client flags":            pack(uint32(1 << 31)),
		"an unknown export's name":     pack(uint32(3), header(optExportName, 4), "none"),
		"a name that is not UTF-8":     pack(uint32(3), header(optExportName, 2), "\xff\xfe"),
		"a name with NUL":              pack(uint32(3), header(optExportName, 5), "disk\x00"),
		"a name above 4096 bytes":      pack(uint32(3), header(optExportName, 4097), make([]byte, 4097)),
		"another magic":                pack(uint32(3), "IHAVEOPX", uint32(optList), uint32(0)),
		"an option of 64 KiB and one":  pack(uint32(3), header(99, 64<<10+1)),
		"an option of 4 GiB":           pack(uint32(3), header(optGo, 1<<32-1)),
		"a request before an export":   pack(uint32(3), request{command: read, length: 512}.packed()),
		"a list of 4 GiB":              pack(uint32(3), header(optList, 1<<32-1)),
		"an export's name of 4 GiB":    pack(uint32(3), header(optExportName, 1<<32-1)),
		"a name that is also too long": pack(uint32(3), header(optExportName, 1<<20)),
	}
	r := one(t, nbd.Options{}, newMemory(diskSize))
	for name, bytes := range cases {
		t.Run(name, func(t *testing.T) {
			c := connect(t, r)
			c.take(18)
			c.put(bytes)
			c.closed()
		})
	}
}

func TestAbortIsAnswered(t *testing.T) {
	c := dial(t, one(t, nbd.Options{}, newMemory(diskSize)))
	c.expectAck(optAbort)
	c.closed()
}

func TestOptionsThatAreRefusedLeaveTheHandshakeInStep(t *testing.T) {
	cases := []struct {
		name   string
		option uint32
		data   []byte
		want   uint32
	}{
		{"unknown", 4711, nil, errUnsup},
		{"unknown with data", 4711, make([]byte, 64<<10), errUnsup},
		{"STARTTLS", optStartTLS, nil, errUnsup},
		{"EXTENDED_HEADERS", optExtendedHeaders, nil, errUnsup},
		{"LIST with data", optList, []byte{1}, errInvalid},
		{"STRUCTURED_REPLY with data", optStructured, []byte{1}, errInvalid},
		{"INFO of nothing", optInfo, nil, errInvalid},
		{"INFO without a count", optInfo, named("disk"), errInvalid},
		{"INFO whose name is longer than its data", optInfo, pack(uint32(1<<32-1), "disk", uint16(0)), errInvalid},
		{"INFO with fewer wishes than counted", optInfo, pack(named("disk"), uint16(2), uint16(0)), errInvalid},
		{"INFO with more wishes than counted", optInfo, pack(named("disk"), uint16(0), uint16(0)), errInvalid},
		{"GO with a name of 4097 bytes", optGo, pack(named(strings.Repeat("n", 4097)), uint16(0)), errInvalid},
		{"GO with a name that is not UTF-8", optGo, pack(named("\xc3"), uint16(0)), errInvalid},
		{"INFO of an unknown export", optInfo, pack(named("none"), uint16(0)), errUnknown},
		{"GO of an unknown export", optGo, pack(named("none"), uint16(0)), errUnknown},
		{"SET_META_CONTEXT before STRUCTURED_REPLY", optSetMeta, queries("disk", "base:allocation"), errInvalid},
		{"LIST_META_CONTEXT before STRUCTURED_REPLY", optListMeta, queries("disk"), errInvalid},
	}
	c := dial(t, one(t, nbd.Options{}, newMemory(diskSize)))
	for _, o := range cases {
		if got := c.last(o.option, o.data); got != o.want {
			t.Errorf("%s: answered %#x, want %#x", o.name, got, o.want)
		}
	}
	c.expectAck(optGo, named("disk"), uint16(0))
	c.inStep()
}

func TestList(t *testing.T) {
	r := one(t, nbd.Options{List: func() []string { return []string{"web01/root", "", "größe"} }}, newMemory(diskSize))
	var got []string
	for _, reply := range dial(t, r).option(optList) {
		if reply.kind == repServer {
			got = append(got, string(reply.data[4:]))
			if n := binary.BigEndian.Uint32(reply.data); int(n) != len(reply.data)-4 {
				t.Errorf("a name of %d bytes has length %d", len(reply.data)-4, n)
			}
		}
	}
	if want := []string{"web01/root", "", "größe"}; !slices.Equal(got, want) {
		t.Errorf("listed %q, want %q", got, want)
	}
	if kind := dial(t, one(t, nbd.Options{}, newMemory(1))).last(optList); kind != errPolicy {
		t.Errorf("without a list answered %#x", kind)
	}
}

func TestInfo(t *testing.T) {
	readOnly := newMemory(4096)
	readOnly.readOnly = true
	r := serve(t, nbd.Options{}, map[string]nbd.Export{"disk": newMemory(diskSize), "point": readOnly})
	cases := []struct {
		name       string
		structured bool
		size       uint64
		flags      uint16
	}{
		{"disk", false, diskSize, writableFlags},
		{"disk", true, diskSize, writableFlags | dfFlag},
		{"point", false, 4096, readOnlyFlags},
		{"point", true, 4096, readOnlyFlags | dfFlag},
	}
	for _, w := range cases {
		c := dial(t, r)
		if w.structured {
			c.expectAck(optStructured)
		}
		wishes := pack(uint16(5), uint16(1), uint16(2), uint16(3), uint16(999), uint16(0))
		for _, option := range []uint32{optInfo, optGo} {
			got := map[uint16][]byte{}
			for _, reply := range c.option(option, named(w.name), wishes) {
				if reply.kind == repInfo {
					got[binary.BigEndian.Uint16(reply.data)] = reply.data[2:]
				}
			}
			want := map[uint16][]byte{
				0: pack(w.size, w.flags),
				1: []byte(w.name),
				2: []byte(map[string]string{"disk": "1048576 bytes in memory", "point": "4096 bytes in memory"}[w.name]),
				3: pack(uint32(1), uint32(4096), uint32(32<<20)),
			}
			for kind, data := range want {
				if !bytes.Equal(got[kind], data) {
					t.Errorf("%s, structured %v: information %d is %x, want %x", w.name, w.structured, kind, got[kind], data)
				}
			}
			if len(got) != len(want) {
				t.Errorf("%s: %d pieces of information, want %d", w.name, len(got), len(want))
			}
		}
	}
}

func TestMetaContexts(t *testing.T) {
	cases := []struct {
		name    string
		option  uint32
		data    []byte
		context bool
		last    uint32
	}{
		{"all", optListMeta, queries("disk"), true, repAck},
		{"a namespace", optListMeta, queries("disk", "base:"), true, repAck},
		{"by name", optListMeta, queries("disk", "x:y", "base:allocation"), true, repAck},
		{"another", optListMeta, queries("disk", "qemu:dirty-bitmap:a", "base:other", "no colon"), false, repAck},
		{"of an unknown export", optListMeta, queries("none"), false, errUnknown},
		{"set by name", optSetMeta, queries("disk", "base:allocation"), true, repAck},
		{"set nothing", optSetMeta, queries("disk"), false, repAck},
		{"set a wildcard", optSetMeta, queries("disk", "base:"), false, repAck},
		{"set for an unknown export", optSetMeta, queries("none", "base:allocation"), false, errUnknown},
		{"a count beyond the data", optSetMeta, pack(named("disk"), uint32(1<<32-1)), false, errInvalid},
		{"a query beyond the data", optSetMeta, pack(named("disk"), uint32(1), uint32(99), "base:"), false, errInvalid},
		{"data after the queries", optSetMeta, pack(queries("disk"), uint32(0)), false, errInvalid},
	}
	r := one(t, nbd.Options{}, newMemory(diskSize))
	c := dial(t, r)
	c.expectAck(optStructured)
	for _, w := range cases {
		replies := c.option(w.option, w.data)
		context := slices.ContainsFunc(replies, func(o optionReply) bool {
			return o.kind == repMeta && string(o.data[4:]) == "base:allocation"
		})
		if last := replies[len(replies)-1].kind; context != w.context || last != w.last {
			t.Errorf("%s: context %v, then %#x; want %v, %#x", w.name, context, last, w.context, w.last)
		}
	}
}

func TestAMetaContextIsOfOneExportAndOfTheLastChoice(t *testing.T) {
	r := one(t, nbd.Options{}, newMemory(diskSize))
	cases := map[string]struct {
		choices [][]byte
		want    uint32
	}{
		"chosen":                  {[][]byte{queries("disk", "base:allocation")}, 0},
		"never chosen":            {nil, einval},
		"for the other name":      {[][]byte{queries("", "base:allocation")}, einval},
		"taken back":              {[][]byte{queries("disk", "base:allocation"), queries("disk")}, einval},
		"taken back by a failure": {[][]byte{queries("disk", "base:allocation"), queries("none", "base:allocation")}, einval},
	}
	for name, w := range cases {
		c := dial(t, r)
		c.structured = true
		c.expectAck(optStructured)
		for _, choice := range w.choices {
			c.option(optSetMeta, choice)
		}
		c.expectAck(optGo, named("disk"), uint16(0))
		if got := c.do(request{command: status, length: 4096}).err; got != w.want {
			t.Errorf("%s: answered %d, want %d", name, got, w.want)
		}
	}
}

func TestAHandshakeTakesNoLongerThanItMay(t *testing.T) {
	r := one(t, nbd.Options{HandshakeTimeout: 20 * time.Millisecond}, newMemory(diskSize))
	whole := pack(uint32(3), "IHAVEOPT", uint32(optGo), uint32(10), named("disk"), uint16(0))
	for cut := range len(whole) {
		c := connect(t, r)
		c.take(18)
		c.put(whole[:cut])
		c.closed()
	}
	entered := enter(t, r, true)
	time.Sleep(50 * time.Millisecond) // longer than a handshake may take
	entered.inStep()
}

func TestOthersAreNotLetIn(t *testing.T) {
	r := one(t, nbd.Options{AllowedUIDs: []uint32{4_000_000_000}}, newMemory(diskSize))
	connect(t, r).closed()
}

func TestMoreConnectionsThanAllowedAreClosed(t *testing.T) {
	r := one(t, nbd.Options{MaxConnections: 2}, newMemory(diskSize))
	first, second := enter(t, r, true), enter(t, r, false)
	connect(t, r).closed()
	first.inStep()
	second.inStep()
}
