package durabletest

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"

	"vmreplica/internal/durable"
)

// Options bound the states that Crashes yields. The zero Options give every position of the log, every effect
// that may be lost, up to 32, by itself, and 8 random combinations at each position.
type Options struct {
	// Seed picks the random combinations.
	Seed uint64
	// Random is their number at each position; negative is none.
	Random int
	// Singles is how many of the effects that may be lost are tried one by one, kept alone and lost alone.
	Singles int
	// From is the first position; Every tries only each n-th of the positions between two syncs or steps.
	From, Every int
}

// Crash is what a power loss left.
type Crash struct {
	*Recorder
	position int
	promised []any
	log      []Op
	survived []survivor
}

// survivor is an effect that was not synced and is there all the same, whole or in part.
type survivor struct {
	op   *Op
	part part
}

// Dir is the host's root, as Recorder.Dir.
func (c *Crash) Dir() durable.Dir { return c.Recorder.Dir() }

// Marks are the promises made before the crash, oldest first.
func (c *Crash) Marks() []any { return c.promised }

// Position is the number of operations before the crash.
func (c *Crash) Position() int { return c.position }

// String says where the crash was and what survived, for a test's message.
func (c *Crash) String() string {
	var text strings.Builder
	text.WriteString("at the start")
	if c.position > 0 {
		text.Reset()
		fmt.Fprintf(&text, "after operation %d, %s", c.position, &c.log[c.position-1])
	}
	if len(c.survived) == 0 {
		text.WriteString(": nothing unsynced survived")
		return text.String()
	}
	text.WriteString(": of what was not synced survived")
	for _, survivor := range c.survived {
		fmt.Fprintf(&text, "; %s%s", survivor.op, survivor.part)
	}
	return text.String()
}

// Crashes yields the states that a power loss may leave, of the log as it stands now. A state that an earlier
// position has given already is not given again. The Recorder itself stays as it is.
func (r *Recorder) Crashes(options Options) iter.Seq[*Crash] {
	options = options.withDefaults()
	r.mu.Lock()
	w := &walk{
		options: options, log: r.log[:len(r.log):len(r.log)], marks: r.marks[:len(r.marks):len(r.marks)],
		durable: r.start.clone(), random: rand.New(rand.NewPCG(options.Seed, uint64(len(r.log)))), clock: r.clock,
	}
	r.mu.Unlock()
	return func(yield func(*Crash) bool) {
		copied := *w
		copied.durable = w.durable.clone()
		copied.run(yield)
	}
}

func (o Options) withDefaults() Options {
	if o.Random == 0 {
		o.Random = 8
	}
	if o.Singles == 0 {
		o.Singles = 32
	}
	o.Every = max(1, o.Every)
	return o
}

// walk goes through a log and keeps apart what is durable and what may be lost.
type walk struct {
	options  Options
	log      []Op
	marks    []mark
	clock    int64
	random   *rand.Rand
	durable  *image
	pending  []effect
	position int
	// fresh says that the last operation is an effect: only states that hold it are new.
	fresh bool
}

func (w *walk) run(yield func(*Crash) bool) {
	skipped, sinceSync := true, 0
	for {
		w.fresh = w.fresh && !skipped
		if skipped = !w.due(sinceSync); !skipped && !w.states(yield) {
			return
		}
		if w.position == len(w.log) {
			return
		}
		w.advance(&w.log[w.position])
		w.position++
		if sinceSync++; !w.fresh {
			sinceSync = 0
		}
	}
}

// due says whether the present position is one to try: in turn, or the last before a sync or a step.
func (w *walk) due(sinceSync int) bool {
	if w.position < w.options.From {
		return false
	}
	if w.position == len(w.log) || sinceSync%w.options.Every == 0 {
		return true
	}
	next := &w.log[w.position]
	return next.Err != nil || !next.ofContent() && !next.ofNames()
}

// choice is one state: the pending effects by their place that survive, and how much of one or more writes.
type choice struct {
	survives func(i int) bool
	parts    map[int]part
}

// states yields the states at the present position; false when the loop was left.
func (w *walk) states(yield func(*Crash) bool) bool {
	emit := func(c choice) bool { return yield(w.crash(c)) }
	losable := w.losable()
	last := len(w.pending) - 1
	if !w.fresh && !emit(choice{survives: none}) {
		return false
	}
	if len(losable) == 0 {
		return true
	}
	return emit(choice{survives: all}) &&
		w.onlyOne(losable, last, emit) && w.allButOne(losable, last, emit) &&
		w.torn(last, emit) && w.combinations(losable, last, emit)
}

func none(int) bool { return false }
func all(int) bool  { return true }

func (w *walk) onlyOne(losable []int, last int, emit func(choice) bool) bool {
	if len(losable) < 2 {
		return true
	}
	if w.fresh {
		return emit(choice{survives: func(i int) bool { return i == last }})
	}
	for _, one := range w.sample(losable) {
		if !emit(choice{survives: func(i int) bool { return i == one }}) {
			return false
		}
	}
	return true
}

func (w *walk) allButOne(losable []int, last int, emit func(choice) bool) bool {
	if len(losable) < 3 {
		return true
	}
	for _, one := range w.sample(losable) {
		if w.fresh && one == last {
			continue
		}
		if !emit(choice{survives: func(i int) bool { return i != one }}) {
			return false
		}
	}
	return true
}

// torn cuts the last write, with everything else kept and with everything else lost.
func (w *walk) torn(last int, emit func(choice) bool) bool {
	if !w.fresh || w.pending[last].op.Kind != Write {
		return true
	}
	for _, cut := range cuts(w.pending[last].op) {
		parts := map[int]part{last: cut}
		if !emit(choice{survives: all, parts: parts}) {
			return false
		}
		if last > 0 && !emit(choice{survives: func(i int) bool { return i == last }, parts: parts}) {
			return false
		}
	}
	return true
}

// combinations keeps about half of the effects by chance, and cuts some of the writes.
func (w *walk) combinations(losable []int, last int, emit func(choice) bool) bool {
	if len(losable) < 2 {
		return true
	}
	for range w.options.Random {
		kept, parts := map[int]bool{last: w.fresh}, map[int]part{}
		for _, i := range losable {
			kept[i] = kept[i] || w.random.IntN(2) == 0
			if cuts := cuts(w.pending[i].op); len(cuts) > 0 && w.random.IntN(4) == 0 {
				parts[i] = cuts[w.random.IntN(len(cuts))]
			}
		}
		if !emit(choice{survives: func(i int) bool { return kept[i] }, parts: parts}) {
			return false
		}
	}
	return true
}

// sample is the effects to try one by one: the newest, the oldest, and by chance some between.
func (w *walk) sample(losable []int) []int {
	if len(losable) <= w.options.Singles {
		return losable
	}
	newest := max(1, w.options.Singles/4)
	chosen := append([]int{losable[0]}, losable[len(losable)-newest:]...)
	between := losable[1 : len(losable)-newest]
	for len(chosen) < w.options.Singles {
		chosen = append(chosen, between[w.random.IntN(len(between))])
	}
	return chosen
}

// crash is the host after the choice.
func (w *walk) crash(c choice) *Crash {
	left := w.durable.clone()
	var survived []survivor
	for i := range w.pending {
		pending := &w.pending[i]
		if !pending.certain && !c.survives(i) {
			continue
		}
		left.apply(pending.op, c.parts[i])
		if !pending.certain {
			survived = append(survived, survivor{pending.op, c.parts[i]})
		}
	}
	left.forget(func(int) bool { return false })
	return &Crash{
		Recorder: restarted(left, w.clock), position: w.position, promised: w.promisedBy(w.position),
		log: w.log, survived: survived,
	}
}
