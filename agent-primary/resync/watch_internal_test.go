package resync

import (
	"testing"
	"testing/synctest"
	"time"

	"vmreplica/agent-primary/tracking"
)

// still is a source that does not change.
type still struct{ tracking.Source }

func (still) Continuous(tracking.Cut) error { return nil }

// moving is a stream on which a byte crosses each way every millisecond.
type moving struct {
	Stream
	began time.Time
}

func (m moving) WireBytes() (sent, received int64) {
	passed := time.Since(m.began).Milliseconds()
	return passed, passed
}

// Whoever watches a slow link must see it move each second.
func TestTheWireFiguresAreHalfASecondOldAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pass{
			Options: Options{Limits: DefaultLimits()}, stream: moving{began: time.Now()},
			disk: Disk{Source: still{}, Progress: new(Progress)},
		}
		done, ended := make(chan struct{}), make(chan error)
		go func() { ended <- p.watch(t.Context(), done) }()
		for second := int64(1); second < 5; second++ {
			time.Sleep(time.Second)
			synctest.Wait()
			if shown := p.disk.Progress.Figures(); shown.WireBytesSent < 1000*second-500 || shown.WireBytesReceived < 1000*second-500 {
				t.Errorf("after %d s: %+v", second, shown)
			}
		}
		close(done)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
