package relationship

import (
	"time"

	"vmreplica/internal/event"
)

// keepInterval is how often the progress of a transfer is saved: what a kill makes the agent forget.
const keepInterval = 5 * time.Second

// keep saves the progress when that is due.
func (o *owner) keep(now time.Time) {
	if now.Sub(o.keptAt) >= keepInterval {
		o.keptAt = now
		o.saveProgress()
	}
}

// saveProgress saves how far the running resync came, if that is not what was saved last.
func (o *owner) saveProgress() {
	active := o.record().Active()
	if o.erased || active == nil || !active.running() {
		return
	}
	figures := o.live.figures(active.ID)
	if len(figures) == 0 || active.has(figures) {
		return
	}
	c := change{transition: func(r Record) (Record, []event.Event, error) {
		r = r.clone()
		r.saveFigures(figures)
		return r, nil, nil
	}}
	if a := o.handle(c); a.err != nil {
		o.log.Error("the progress was not saved", "error", a.err)
	}
}
