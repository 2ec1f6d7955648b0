package nbd

import (
	"errors"
	"testing"
	"testing/synctest"
)

// flusher is an export of which only Flush is called: it says that it began and waits for its result.
type flusher struct {
	Export
	began  int
	result chan error
}

func (f *flusher) Flush() error {
	f.began++
	return <-f.result
}

// TestFlushesAreShared: those that come while one runs wait for the next, together; none is answered by the one
// that ran when it came. After a failure none runs.
func TestFlushesAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		export := &flusher{result: make(chan error)}
		v := &volume{Export: export}
		answers := make(chan error, 100)
		ask := func(n int) {
			for range n {
				go func() { answers <- v.flush() }()
			}
			synctest.Wait()
		}
		expect := func(began, n int, failed bool) {
			t.Helper()
			synctest.Wait()
			if export.began != began || len(answers) != n {
				t.Fatalf("%d flushes began and %d were answered, want %d and %d", export.began, len(answers), began, n)
			}
			for range n {
				if err := <-answers; (err != nil) != failed {
					t.Fatalf("answered %v", err)
				}
			}
		}
		ask(1)
		expect(1, 0, false)
		ask(5)
		expect(1, 0, false)
		export.result <- nil
		expect(2, 1, false)
		ask(7)
		export.result <- nil
		expect(3, 5, false)
		ask(3)
		export.result <- errors.New("lost")
		expect(3, 7+3, true)
		ask(2)
		expect(3, 2, true)
	})
}
