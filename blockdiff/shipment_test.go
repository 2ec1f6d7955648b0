package blockdiff_test

import (
	"testing"

	"vmreplica/blockdiff"
)

// TestShipmentRoots tells apart whatever a shipment could get wrong, and joins what is only cut differently.
func TestShipmentRoots(t *testing.T) {
	geometry, err := blockdiff.NewGeometry(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	other, err := blockdiff.NewGeometry(2 << 20)
	if err != nil {
		t.Fatal(err)
	}
	for _, algorithm := range []blockdiff.Algorithm{blockdiff.BLAKE3, blockdiff.SHA256} {
		p, err := blockdiff.NewProver(algorithm)
		if err != nil {
			t.Fatal(err)
		}
		frame := func(extents string, parts ...string) blockdiff.Hash {
			h := p.NewFrameHash([]byte(extents))
			for _, part := range parts {
				h.Add([]byte(part))
			}
			return h.Sum()
		}
		root := func(g blockdiff.Geometry, frames ...blockdiff.Hash) blockdiff.Hash {
			chain := p.StartShipment(g)
			for _, f := range frames {
				chain = p.Extend(chain, f)
			}
			return chain
		}
		if frame("ab", "cd", "ef") != frame("ab", "cdef") {
			t.Errorf("%s: where the plaintext is cut shows in the hash", algorithm)
		}
		a, b := frame("ab", "cd"), frame("abc", "d")
		distinct := map[blockdiff.Hash]string{}
		for name, hash := range map[string]blockdiff.Hash{
			"nothing": root(geometry), "another disk": root(other), "one frame": root(geometry, a), "another": root(geometry, b),
			"both": root(geometry, a, b), "both, turned": root(geometry, b, a), "twice": root(geometry, a, a),
			"a disk's start": p.Start(geometry),
		} {
			if same, known := distinct[hash]; known {
				t.Errorf("%s: %s and %s have one root", algorithm, name, same)
			}
			distinct[hash] = name
		}
	}
}
