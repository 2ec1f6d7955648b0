package hrl

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"vmreplica/internal/disk"
	"vmreplica/internal/replication"
)

// header is what a slot holds, as JSON behind the prelude.
type header struct {
	// Sequence rises with each change of the header.
	Sequence uint64
	// Identity is the disk's.
	Identity replication.ID
	Baseline replication.ID
	DiskSize int64
	// Opened counts the openings.
	Opened uint64
	// BootID is the host's boot in which the log was opened, File the log's own file then.
	BootID string
	File   fileID
	// Clean says that the log was closed: Stamp is the image's and Digest the live marks' at that moment, in the area
	// Live.
	Clean  bool
	Stamp  disk.Stamp
	Digest uint64
	Live   int
	Lost   Loss
}

// fileID tells the log's file from a copy put in its place.
type fileID struct{ Device, Inode uint64 }

// The prelude of a slot: magic, version, length of the JSON, digest of the JSON.
const (
	magic        = "VMRHRL\r\n"
	version      = 1
	preludeBytes = 24
	// evidenceBytes bounds a loss's evidence, which JSON may spell six times as long.
	evidenceBytes = 512
)

// errHeader is in the chain of every reason not to take a slot for a header.
var errHeader = errors.New("not a log's header")

// encode is a whole slot.
func (h header) encode() ([]byte, error) {
	body, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("write down the header: %w", err)
	}
	if len(body) > pageSize-preludeBytes {
		return nil, fmt.Errorf("a header of %d bytes does not fit its slot", len(body))
	}
	slot := make([]byte, pageSize)
	copy(slot, magic)
	binary.LittleEndian.PutUint32(slot[8:], version)
	binary.LittleEndian.PutUint32(slot[12:], uint32(len(body)))
	binary.LittleEndian.PutUint64(slot[16:], xxhash.Sum64(body))
	copy(slot[preludeBytes:], body)
	return slot, nil
}

// decode takes a slot for a header, or says why not.
func decode(slot []byte) (header, error) {
	if len(slot) != pageSize || string(slot[:8]) != magic {
		return header{}, fmt.Errorf("%w: it does not begin as one", errHeader)
	}
	if v := binary.LittleEndian.Uint32(slot[8:]); v != version {
		return header{}, fmt.Errorf("%w: version %d, and only %d is known", errHeader, v, version)
	}
	length := binary.LittleEndian.Uint32(slot[12:])
	if length > pageSize-preludeBytes {
		return header{}, fmt.Errorf("%w: %d bytes do not fit its slot", errHeader, length)
	}
	body := slot[preludeBytes:][:length]
	if xxhash.Sum64(body) != binary.LittleEndian.Uint64(slot[16:]) {
		return header{}, fmt.Errorf("%w: its digest is another", errHeader)
	}
	var h header
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&h); err != nil {
		return header{}, fmt.Errorf("%w: %w", errHeader, err)
	}
	return h, h.check()
}

// check refuses what no log of ours says.
func (h header) check() error {
	if !h.Identity.Valid() || h.Baseline != "" && !h.Baseline.Valid() {
		return fmt.Errorf("%w: its ids are none", errHeader)
	}
	if err := disk.CheckSize(h.DiskSize, 512); err != nil {
		return fmt.Errorf("%w: %w", errHeader, err)
	}
	if h.Live != areaA && h.Live != areaB {
		return fmt.Errorf("%w: its live marks are in area %d", errHeader, h.Live)
	}
	if h.Lost.Cause > TrackingLost {
		return fmt.Errorf("%w: cause %d is not known", errHeader, h.Lost.Cause)
	}
	return nil
}

// newest is the header of two slots: the later of two good ones, else the good one. A slot that was torn while it was
// written is the later one and nothing had been done on its word; one that was damaged at rest has a twin.
func newest(a, b []byte) (header, error) {
	first, err1 := decode(a)
	second, err2 := decode(b)
	switch {
	case err1 != nil && err2 != nil:
		return header{}, errors.Join(err1, err2)
	case err1 != nil, err2 == nil && second.Sequence > first.Sequence:
		return second, nil
	default:
		return first, nil
	}
}
