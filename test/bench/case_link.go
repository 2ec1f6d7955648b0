package main

import (
	"context"
	"path/filepath"
	"time"
)

const (
	linkLimit = 1.10
	linkRate  = 1_500_000 // bits a second
	linkVM    = "link"
)

// runLink measures a resync over a slow link against the time that its bytes need.
func runLink(ctx context.Context, b *bench) error {
	link, err := makeSlowLink(ctx, linkRate)
	if err != nil {
		return err
	}
	defer link.remove()
	dir, size := filepath.Join(b.dir, "link"), 256*mib
	p, err := startPair(ctx, b, setting{dir: dir, images: filepath.Join(dir, "images"), storage: filepath.Join(dir, "storage"),
		primaryIn: link.near, replicaIn: link.far, primaryHost: nearAddress, replicaHost: farAddress})
	if err != nil {
		return err
	}
	defer p.stop()
	if err := buildImage(ctx, p.image(linkVM), size); err != nil {
		return err
	}
	if err := duplicate(ctx, p.image(linkVM), p.held(linkVM)); err != nil {
		return err
	}
	if err := p.adopt(ctx, linkVM, ""); err != nil {
		return err
	}
	changed, rounds := 10*mib, 3
	if b.quick {
		changed, rounds = 4*mib, 1
	}
	var all []linkRound
	for i := range rounds {
		if _, err := rewriteRandom(p.image(linkVM), size, int(changed)/subBlock, uint64(i+1)); err != nil {
			return err
		}
		r, err := linkOnce(ctx, p, link)
		if err != nil {
			return err
		}
		all = append(all, r)
		if err := compare(ctx, p.image(linkVM), p.held(linkVM)); err != nil {
			return err
		}
	}
	b.reportLink(all, size, changed)
	return nil
}

// linkRound is one resync and what the near end of the link counted meanwhile.
type linkRound struct {
	ours           resyncTime
	sent, received int64
}

// least is the time that the busier direction's bytes need, as the primary counts them: headers are not in them.
func (r linkRound) least() time.Duration { return onLink(max(r.ours.sent, r.ours.received)) }

func (r linkRound) ratio() float64 { return r.ours.took.Seconds() / r.least().Seconds() }

func onLink(bytes int64) time.Duration { return time.Duration(float64(bytes) * 8 / linkRate * 1e9) }

func linkOnce(ctx context.Context, p *pair, link *slowLink) (linkRound, error) {
	var r linkRound
	sent, received, err := link.bytes(ctx)
	if err != nil {
		return r, err
	}
	if r.ours, err = p.resync(ctx, linkVM); err != nil {
		return r, err
	}
	r.sent, r.received, err = link.bytes(ctx)
	r.sent, r.received = r.sent-sent, r.received-received
	return r, err
}

func (b *bench) reportLink(all []linkRound, size, changed int64) {
	b.table.add("1.5 Mbit/s, ours ÷ (wire ÷ rate)", medianOf(all, linkRound.ratio), linkLimit, "%.3f")
	last := all[len(all)-1]
	b.table.note("4: %s of %s changed, incompressible, tbf at both ends; ours %s for %d bytes sent and %d received as the primary counts, "+
		"which need %s one way; with TCP's and Ethernet's headers %d and %d, which need %s.",
		bytesText(changed), bytesText(size), seconds(last.ours.took), last.ours.sent, last.ours.received, seconds(last.least()),
		last.sent, last.received, seconds(onLink(max(last.sent, last.received))))
}
