package points

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"vmreplica/agent-replica/chain"
	"vmreplica/internal/replication"
)

func id(digit string) replication.ID { return replication.ID(strings.Repeat(digit, 32)) }

// holding is a record that keeps up to n points, has these, and committed the cut c.
func holding(n int, points ...string) chain.Record {
	r := chain.Record{
		VM: "web01", Lineage: id("1"), Cut: id("c"), RecoveryPoints: n, Disks: []chain.Disk{{ID: "root"}, {ID: "data"}},
	}
	for i := range r.Disks {
		for _, point := range points {
			r.Disks[i].Layers = append(r.Disks[i].Layers, chain.Layer{
				File: r.Disks[i].ID + point, State: chain.Committed, Point: &chain.Point{ID: id(point)},
			})
			r.PointCut = id(point)
		}
	}
	return r
}

func TestWhenAPointIsDue(t *testing.T) {
	sealed := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		change func(*chain.Record)
		after  time.Duration
		due    bool
		next   time.Duration
	}{
		"an hour has passed":     {after: time.Hour, due: true},
		"more has passed":        {after: 30 * time.Hour, due: true},
		"less has passed":        {after: 59 * time.Minute, next: time.Hour},
		"the clock was set back": {after: -time.Second, due: true},
		"the first one":          {change: func(r *chain.Record) { r.PointCut, r.PointTime = "", time.Time{} }, due: true},
		"none are kept":          {change: func(r *chain.Record) { r.RecoveryPoints = 0 }, after: time.Hour},
		"nothing was committed":  {change: func(r *chain.Record) { r.Cut = r.PointCut }, after: time.Hour},
		"a transfer is open":     {change: func(r *chain.Record) { r.Transfer = &chain.Transfer{} }, after: time.Hour},
		"a base is in doubt":     {change: func(r *chain.Record) { r.Disks[1].Doubt = "it changed" }, after: time.Hour},
		"nothing was ever":       {change: func(r *chain.Record) { r.Lineage = "" }, after: time.Hour},
		"it is being removed":    {change: func(r *chain.Record) { r.Releasing = true }, after: time.Hour},
	} {
		r := holding(2, "a", "b")
		r.PointTime = sealed
		if c.change != nil {
			c.change(&r)
		}
		want := time.Time{}
		if c.next > 0 {
			want = sealed.Add(c.next)
		}
		if due, next := Due(r, sealed.Add(c.after), time.Hour); due != c.due || !next.Equal(want) {
			t.Errorf("%s: due %t, next %s", name, due, next)
		}
	}
}

func TestTheOldestAreInExcess(t *testing.T) {
	for _, c := range []struct {
		kept, adding int
		want         []string
	}{{3, 0, nil}, {4, 1, nil}, {3, 1, []string{"a"}}, {2, 0, []string{"a"}}, {2, 1, []string{"a", "b"}},
		{0, 0, []string{"a", "b", "d"}}, {0, 1, []string{"a", "b", "d"}}} {
		r := holding(c.kept, "a", "b", "d")
		var got []string
		for _, point := range Excess(r, c.adding) {
			got = append(got, string(point[:1]))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", fmt.Sprint(c.kept, c.adding), got, c.want)
		}
		r.Transfer = &chain.Transfer{}
		if excess := Excess(r, c.adding); excess != nil {
			t.Errorf("%v are given up under an open transfer", excess)
		}
	}
}
