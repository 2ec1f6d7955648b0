package qmp

import (
	"encoding/json"
	"slices"
	"strings"
)

// namedNode is one of query-named-block-nodes.
type namedNode struct {
	Name   string `json:"node-name"`
	Driver string `json:"drv"`
	File   string `json:"file"`
}

// export is the name of the export that the node attaches through a unix socket, and whether it does.
func (n namedNode) export() (string, bool) {
	if n.Driver != "nbd" {
		return "", false
	}
	if options, is := strings.CutPrefix(n.File, "json:"); is {
		var attached struct {
			Export string `json:"export"`
			Path   string `json:"server.path"`
			Server struct{ Path string }
		}
		err := json.Unmarshal([]byte(options), &attached)
		return attached.Export, err == nil && attached.Path+attached.Server.Path != ""
	}
	name, is := strings.CutPrefix(n.File, "nbd+unix:///")
	name, _, hasSocket := strings.Cut(name, "?socket=")
	return name, is && hasSocket
}

// blockGraph is what x-debug-query-block-graph tells: QEMU's nodes, block backends and block jobs, and who has which
// permissions on what lies below.
type blockGraph struct {
	Nodes []struct {
		ID   uint64 `json:"id"`
		Type string `json:"type"`
		Name string `json:"name"`
	} `json:"nodes"`
	Edges []struct {
		Parent uint64   `json:"parent"`
		Child  uint64   `json:"child"`
		Perm   []string `json:"perm"`
	} `json:"edges"`
}

// graph is a blockGraph as it is walked.
type graph struct {
	names   map[uint64]string   // of nodes
	ids     map[string]uint64   // of nodes, by name
	parents map[uint64][]uint64 // all above
	written map[uint64]bool     // nodes that the guest's writes come to
}

// newGraph follows the writes from the guest's devices down. A backend without a name is a job's or an export's: it
// belongs to no device.
func newGraph(drawn blockGraph) graph {
	g := graph{
		names: map[uint64]string{}, ids: map[string]uint64{}, parents: map[uint64][]uint64{}, written: map[uint64]bool{},
	}
	var next []uint64
	for _, n := range drawn.Nodes {
		switch {
		case n.Type == "block-driver":
			g.names[n.ID], g.ids[n.Name] = n.Name, n.ID
		case n.Type == "block-backend" && n.Name != "":
			next = append(next, n.ID)
		}
	}
	below := map[uint64][]uint64{}
	for _, e := range drawn.Edges {
		g.parents[e.Child] = append(g.parents[e.Child], e.Parent)
		if slices.Contains(e.Perm, "write") {
			below[e.Parent] = append(below[e.Parent], e.Child)
		}
	}
	for len(next) > 0 {
		id := next[0]
		next = next[1:]
		for _, child := range below[id] {
			if !g.written[child] {
				g.written[child] = true
				next = append(next, child)
			}
		}
	}
	return g
}

// above is the nearest node above id that the guest writes to.
func (g graph) above(id uint64) (string, bool) {
	seen := map[uint64]bool{id: true}
	for next := []uint64{id}; len(next) > 0; next = next[1:] {
		for _, parent := range g.parents[next[0]] {
			if g.written[parent] {
				return g.names[parent], true
			}
			if !seen[parent] {
				seen[parent] = true
				next = append(next, parent)
			}
		}
	}
	return "", false
}

// use is what becomes of one node.
func (g graph) use(node string) (use Use, above string) {
	id, known := g.ids[node]
	if known && g.written[id] {
		return Written, ""
	}
	if above, is := g.above(id); known && is {
		return Snapshotted, above
	}
	return Unused, ""
}

// find is what becomes of each of the exports.
func find(exports []string, nodes []namedNode, g graph) []Found {
	found := make([]Found, len(exports))
	files := map[string]string{}
	for i, export := range exports {
		found[i].Export = export
	}
	for _, n := range nodes {
		files[n.Name] = n.File
		name, is := n.export()
		at := slices.Index(exports, name)
		if !is || at < 0 || found[at].Use == Written {
			continue
		}
		if use, above := g.use(n.Name); use == Written || found[at].Use != Snapshotted {
			found[at] = Found{Export: name, Use: use, Above: above}
		}
	}
	for i := range found {
		found[i].File = files[found[i].Above]
	}
	return found
}
