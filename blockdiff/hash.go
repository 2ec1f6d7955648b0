package blockdiff

import (
	"encoding/hex"
	"errors"
	"fmt"
)

// ErrHash is answered for a text that is no Hash.
var ErrHash = errors.New("invalid hash")

// Hash is a 256-bit hash: a leaf, a segment, a chain value or a root.
type Hash [32]byte

// IsZero says whether the hash was never set.
func (h Hash) IsZero() bool { return h == Hash{} }

// String is the hash as 64 lower-case hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText is String.
func (h Hash) MarshalText() ([]byte, error) {
	return hex.AppendEncode(make([]byte, 0, hex.EncodedLen(len(h))), h[:]), nil
}

// UnmarshalText reads 64 hexadecimal digits; anything else is an ErrHash and changes nothing.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(h)) {
		return fmt.Errorf("%w: %d characters, expected %d", ErrHash, len(text), hex.EncodedLen(len(h)))
	}
	var decoded Hash
	if _, err := hex.Decode(decoded[:], text); err != nil {
		return fmt.Errorf("%w: %w", ErrHash, err)
	}
	*h = decoded
	return nil
}
