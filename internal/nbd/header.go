package nbd

import "encoding/binary"

// header is the head of a request.
type header struct {
	flags   uint16
	command command
	cookie  uint64
	offset  uint64
	length  uint32
}

// parseHeader decodes requestLen bytes; false when they are no request.
func parseHeader(b []byte) (header, bool) {
	h := header{
		flags:   binary.BigEndian.Uint16(b[4:]),
		command: command(binary.BigEndian.Uint16(b[6:])),
		cookie:  binary.BigEndian.Uint64(b[8:]),
		offset:  binary.BigEndian.Uint64(b[16:]),
		length:  binary.BigEndian.Uint32(b[24:]),
	}
	return h, binary.BigEndian.Uint32(b) == magicRequest
}

// rule is what a command allows.
type rule struct {
	flags   uint16 // beside FUA, which every command may have
	writes  bool   // refused where the export is read-only
	empty   bool   // offset and length are zero
	payload bool   // at most MaxPayload in either direction
	// outside and tooLong are the answers to a range outside the export and to a payload above MaxPayload.
	outside, tooLong errno
}

var rules = map[command]rule{
	cmdRead:        {flags: cmdFlagDF, payload: true, outside: errInval, tooLong: errOverflow},
	cmdWrite:       {writes: true, payload: true, outside: errNoSpace, tooLong: errInval},
	cmdFlush:       {empty: true},
	cmdTrim:        {writes: true, outside: errInval},
	cmdWriteZeroes: {flags: cmdFlagNoHole | cmdFlagFastZero, writes: true, outside: errNoSpace},
	cmdBlockStatus: {flags: cmdFlagReqOne, outside: errInval},
}

// terms are what a request is judged by: what the handshake settled.
type terms struct {
	size                             int64
	readOnly, structured, allocation bool
}

// judge says whether a request may reach the export: zero, or what to answer instead. DISC is not judged.
func (h header) judge(t terms) errno {
	r, known := rules[h.command]
	switch {
	case !known, h.flags&^(r.flags|cmdFlagFUA) != 0:
		return errInval
	case h.flags&cmdFlagDF != 0 && !t.structured:
		return errInval
	case h.command == cmdBlockStatus && (!t.allocation || h.length == 0):
		return errInval
	case r.writes && t.readOnly:
		return errPerm
	case r.empty && (h.offset != 0 || h.length != 0):
		return errInval
	case r.payload && h.length > MaxPayload:
		return r.tooLong
	case h.offset > uint64(t.size) || uint64(h.length) > uint64(t.size)-h.offset:
		return r.outside
	}
	return 0
}

// memory is how many bytes a request that was judged well needs for its payload.
func (h header) memory() int64 {
	switch h.command {
	case cmdRead, cmdWrite:
		return bufferSize(int64(h.length))
	case cmdBlockStatus:
		return maxDescriptorsBytes
	default:
		return 0
	}
}
