package render

import (
	"fmt"
	"io"
	"time"

	"github.com/vbauerster/mpb/v8"
)

// Copying shows how far things of known sizes have come: a bar each on a terminal, lines elsewhere. It is for one
// goroutine.
type Copying struct {
	out io.Writer
	now func() time.Time
	// box holds the bars; nil where there are lines.
	box    *mpb.Progress
	things map[string]*copied
}

// copied is one thing's: since when and from where it is measured, and what was last said of it.
type copied struct {
	*bar
	began time.Time
	from  int64
	step  int
	said  time.Time
}

// NewCopying shows on out: bars where it is a terminal, lines elsewhere.
func NewCopying(out io.Writer, terminal bool, now func() time.Time) *Copying {
	c := &Copying{out: out, now: now, things: map[string]*copied{}}
	if terminal {
		c.box = mpb.New(mpb.WithOutput(out), mpb.WithAutoRefresh())
	}
	return c
}

// Show takes how many bytes of a thing are done; a whole of 0 is not known yet and not shown.
func (c *Copying) Show(name string, done, whole int64) {
	if whole <= 0 {
		return
	}
	thing := c.thing(name, done)
	text := thing.pace(done, whole, c.now())
	if c.box == nil {
		c.line(thing, name, text, done, whole)
		return
	}
	if thing.bar != nil {
		left := fmt.Sprintf("%s %d%%", Clean(name), percent(done, whole))
		thing.draw(left, Size(done)+text, done, whole)
	}
}

// thing is what is known of a name; it is measured from the first time that it is shown.
func (c *Copying) thing(name string, done int64) *copied {
	if known, ok := c.things[name]; ok {
		return known
	}
	made := &copied{began: c.now(), from: done, step: -1}
	if c.box != nil {
		made.bar = newBar(c.box, len(c.things), name)
	}
	c.things[name] = made
	return made
}

// line writes a line for each tenth that is passed, and each 30 s.
func (c *Copying) line(thing *copied, name, text string, done, whole int64) {
	step, now := percent(done, whole)/10, c.now()
	if step == thing.step && (done >= whole || now.Sub(thing.said) < silence) {
		return
	}
	thing.step, thing.said = step, now
	fmt.Fprintln(c.out, Clean(fmt.Sprintf("%s: %d%% of %s%s", name, percent(done, whole), Size(whole), text)))
}

// pace is the mean rate since the thing was first shown, and when it ends at that rate.
func (t *copied) pace(done, whole int64, now time.Time) string {
	elapsed := now.Sub(t.began)
	rate := int64(float64(done-t.from) / max(elapsed.Seconds(), 0.001))
	if elapsed < time.Second || rate <= 0 {
		return ""
	}
	text := ", " + Rate(rate)
	if done < whole {
		text += ", " + etaOf(etaAt(whole-done, rate))
	}
	return text
}

// etaAt is how long so many bytes take at a rate, at most 30 days.
func etaAt(bytes, rate int64) time.Duration {
	return time.Duration(min(float64(bytes)/float64(rate), 30*24*3600) * float64(time.Second))
}

// Note adds a sentence that stays.
func (c *Copying) Note(format string, args ...any) {
	out := c.out
	if c.box != nil {
		out = c.box
	}
	// What cannot be written is only news.
	_, _ = io.WriteString(out, Clean(fmt.Sprintf(format, args...))+"\n")
}

// Close leaves what was shown last and ends everything that was started.
func (c *Copying) Close() {
	if c.box == nil {
		return
	}
	for _, thing := range c.things {
		if thing.bar != nil {
			thing.Abort(false)
		}
	}
	c.box.Wait()
}
