package render

import (
	"time"

	"vmreplica/internal/hrl"
)

// hrlLoss is why a log is lost, for programs.
type hrlLoss struct {
	Cause    string    `json:"cause"`
	Evidence string    `json:"evidence"`
	Time     time.Time `json:"time"`
}

// HRL writes what a log of writes says of itself.
func (p Printer) HRL(path string, info hrl.Info) error {
	var loss *hrlLoss
	if info.Loss.Cause != hrl.None {
		loss = &hrlLoss{info.Loss.Cause.String(), info.Loss.Evidence, info.Loss.At}
	}
	return p.Value(struct {
		Path          string   `json:"path"`
		Disk          string   `json:"disk"`
		DiskSizeBytes int64    `json:"diskSizeBytes"`
		FileBytes     int64    `json:"fileBytes"`
		Baseline      string   `json:"baseline"`
		Opened        uint64   `json:"opened"`
		BootID        string   `json:"bootId"`
		ClosedCleanly bool     `json:"closedCleanly"`
		Exact         bool     `json:"exact"`
		Loss          *hrlLoss `json:"loss"`
		MarkedBytes   [2]int64 `json:"markedBytes"`
		SentBytes     int64    `json:"sentBytes"`
	}{
		path, string(info.Identity), info.DiskSize, info.FileBytes, string(info.Baseline), info.Opened, info.BootID,
		info.Clean, loss == nil, loss, [2]int64{info.MarkedA, info.MarkedB}, info.Sent,
	}, func(page *Page) {
		page.section(path)
		for _, line := range info.Lines() {
			page.fact(capital(line[0]), line[1])
		}
	})
}
