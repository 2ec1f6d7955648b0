package nbd_test

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"vmreplica/internal/nbd"
)

// TestAGuestNoticesNothingOfADrain: QEMU with reconnect-delay has one write in flight and more behind it when the
// server is drained; the next server on the same socket takes them up.
func TestAGuestNoticesNothingOfADrain(t *testing.T) {
	export := newMemory(1 << 20)
	held := newGate()
	export.before = func(call string) error {
		if call == "write" {
			return held.before(call)
		}
		return nil
	}
	socket := temporary(t, "nbd.sock")
	listener := listen(t, socket)
	first := one(t, nbd.Options{Listener: listener, MaxRequests: 1}, export)
	first.socket = socket
	command := exec.Command("qemu-io", "--image-opts",
		"driver=nbd,server.type=unix,server.path="+socket+",export=disk,reconnect-delay=30",
		"-c", "aio_write -P 1 0 4k", "-c", "aio_write -P 2 4k 4k", "-c", "aio_write -P 3 8k 4k", "-c", "aio_flush",
		"-c", "read -P 1 0 4k", "-c", "read -P 2 4k 4k", "-c", "read -P 3 8k 4k")
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	must(t, command.Start())
	held.await(t)
	idle := enter(t, first, true)
	drained := make(chan error, 1)
	go func() { drained <- first.Drain(context.Background()) }()
	idle.closed()
	close(held.open)
	must(t, <-drained)
	must(t, first.ended())
	if n := export.called("write"); n == 3 {
		t.Error("nothing was left to the second server: the test proves nothing")
	}
	one(t, nbd.Options{Listener: listener}, export)
	if err := command.Wait(); err != nil || strings.Contains(output.String(), "failed") {
		t.Errorf("%v\n%s", err, output.String())
	}
}

// TestAGuestOutlivesACutConnection: what was in flight when the server was cut off is sent again.
func TestAGuestOutlivesACutConnection(t *testing.T) {
	d := openImage(t, temporary(t, "disk.raw"), imageSize)
	socket := temporary(t, "nbd.sock")
	listener := listen(t, socket)
	server := one(t, nbd.Options{Listener: listener}, d)
	arguments := []string{"--image-opts",
		"driver=nbd,server.type=unix,server.path=" + socket + ",export=disk,reconnect-delay=30"}
	for i := range 60 {
		arguments = append(arguments, "-c", fmt.Sprintf("write -P %d %dM 1M", i+1, i))
	}
	for i := range 60 {
		arguments = append(arguments, "-c", fmt.Sprintf("read -P %d %dM 1M", i+1, i))
	}
	command := exec.Command("qemu-io", arguments...)
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	must(t, command.Start())
	for range 5 {
		server.cancel()
		must(t, server.ended())
		server = one(t, nbd.Options{Listener: listener}, d)
	}
	if err := command.Wait(); err != nil || strings.Contains(output.String(), "failed") {
		t.Errorf("%v\n%s", err, output.String())
	}
}
