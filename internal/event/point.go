package event

import (
	"fmt"
	"time"
)

// PointSealed is a recovery point that the replica keeps from here on; at is when the machine was as the point has it.
func PointSealed(vm, point string, at time.Time) Event {
	return New(TypePointSealed, vm, "", fmt.Sprintf("The recovery point %.12s of %s is kept.", point, instant(at)),
		map[string]string{"point": point, "time": instant(at)})
}

// PointDropped is a recovery point that is kept no longer; its layers are merged into what lies below.
func PointDropped(vm, point string, at time.Time) Event {
	return New(TypePointDropped, vm, "", fmt.Sprintf("The recovery point %.12s of %s is given up.", point, instant(at)),
		map[string]string{"point": point, "time": instant(at)})
}

func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }
