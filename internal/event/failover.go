package event

import (
	"strconv"
	"time"
)

// FailoverStarted is a replica that was failed over to, whose disks are not let go yet.
func FailoverStarted(vm, point string, term uint64) Event {
	return New(TypeFailoverStarted, vm, "", "The replica was failed over to; its primary is refused from here on.",
		map[string]string{"point": point, "term": strconv.FormatUint(term, 10)})
}

// FailoverFinished is a failover whose disks can be used.
func FailoverFinished(vm, point string, took time.Duration) Event {
	return New(TypeFailoverFinished, vm, "", "The failover is done: the disks are let go.",
		map[string]string{"point": point, "duration": took.String()})
}
