package blockdiff_test

import (
	"errors"
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

// These values were computed by an implementation that shares no code with this package; docs/wire.md shows them.
func TestShipmentGolden(t *testing.T) {
	golden := map[blockdiff.Algorithm]map[string]string{
		blockdiff.BLAKE3: {
			"start":        "a18d98938ba84920412594e95ed526d42044938e0c399acc9cf6eb72415917fa",
			"first frame":  "236b82b745e0db4c0c05f2203cb014b6cdf71a3883594ab2ce85fae5d417ebc5",
			"second frame": "c05874ed5caa4605a6bd26c7b6fae4b40f4fc7ff46d20cb303d65d665f1ee96f",
			"root":         "9928cabc984d3e1084bb78225e627c6a6e4134b42cefbf30156b052624e968b2",
		},
		blockdiff.SHA256: {
			"start":        "fe3f81ecabcc57bb3b5e6c76b1d722cd6588f653c3a39d6b9340c997e495fd97",
			"first frame":  "bf9bad2504b6a7e1e7d1fa705eb130ca1806af0887ab62c54be82b1ed2a1111a",
			"second frame": "6658b094caa794d201903fcfd12294c7985c5828e8b89f8d0875050f1369e885",
			"root":         "7a45cc57da71dfb6a35591d2ea77b4e0768728d9f2babf4cc5b086ed5d5061a0",
		},
	}
	g := geometry(t, 1<<20)
	encoder := blockdiff.NewEncoder()
	for _, p := range provers(t) {
		root := p.StartShipment(g)
		got := map[string]blockdiff.Hash{"start": root}
		for name, fill := range map[string]func(*blockdiff.Builder) error{
			"first frame": func(b *blockdiff.Builder) error {
				return errors.Join(b.AddData(0, goldenBlock(0)[:blockdiff.SubBlockSize]), b.AddZero(12<<10, 4<<10))
			},
			"second frame": func(b *blockdiff.Builder) error { return b.AddUnmapped(64<<10, 64<<10) },
		} {
			builder := blockdiff.NewBuilder(g, 1<<20)
			if err := fill(builder); err != nil {
				t.Fatal(err)
			}
			plain := builder.Take()
			frame, err := encoder.Encode(g, plain)
			if err != nil {
				t.Fatal(err)
			}
			hash := p.NewFrameHash(frame.Extents)
			hash.Add(plain.Data)
			got[name] = hash.Sum()
		}
		got["root"] = p.Extend(p.Extend(root, got["first frame"]), got["second frame"])
		for name, want := range golden[p.Algorithm()] {
			if got[name].String() != want {
				t.Errorf("%s: %s is %s, want %s", p.Algorithm(), name, got[name], want)
			}
		}
	}
}
