package daemon

import (
	"context"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
)

const (
	notifyReady    = systemd.SdNotifyReady
	notifyStopping = systemd.SdNotifyStopping
	notifyWatchdog = systemd.SdNotifyWatchdog
)

// notify sends a notice to systemd; without systemd it does nothing.
func (h *Host) notify(state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		h.Log.Warn("systemd was not notified", "notice", state, "error", err)
	}
}

// startWatchdog feeds systemd's watchdog twice an interval while all checks pass, and answers how to end it.
func (h *Host) startWatchdog() (stop func()) {
	interval, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		h.Log.Warn("the watchdog is not fed", "error", err)
	}
	if err != nil || interval == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.feed(ctx, interval/2)
	}()
	return func() {
		cancel()
		<-done
	}
}

func (h *Host) feed(ctx context.Context, every time.Duration) {
	ticks := time.NewTicker(every)
	defer ticks.Stop()
	for {
		if err := h.failed(ctx); err != nil {
			h.Log.Error("a check failed, the watchdog is not fed", "error", err)
		} else {
			h.notify(notifyWatchdog)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
	}
}

// oneLine keeps a notice from carrying another one.
func oneLine(text string) string {
	return strings.NewReplacer("\n", " ", "\r", " ").Replace(text)
}
