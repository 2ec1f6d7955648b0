package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
)

// The addresses of the two ends; they exist only in the namespaces.
const nearAddress, farAddress = "192.0.2.1", "192.0.2.2"

// slowLink is two network namespaces joined by a link of one rate in each direction.
type slowLink struct{ near, far string }

// makeSlowLink joins two new namespaces at rate bits a second.
func makeSlowLink(ctx context.Context, rate int64) (*slowLink, error) {
	name := fmt.Sprintf("vmrbench%d", os.Getpid())
	l := &slowLink{near: name + "a", far: name + "b"}
	shaped := []string{"root", "tbf", "rate", fmt.Sprintf("%dbit", rate), "burst", "8kb", "latency", "200ms"}
	commands := [][]string{
		{"ip", "netns", "add", l.near},
		{"ip", "netns", "add", l.far},
		{"ip", "-n", l.near, "link", "add", "link0", "type", "veth", "peer", "name", "link0", "netns", l.far},
	}
	for _, end := range []struct{ namespace, address string }{{l.near, nearAddress}, {l.far, farAddress}} {
		commands = append(commands,
			[]string{"ip", "-n", end.namespace, "address", "add", end.address + "/30", "dev", "link0"},
			[]string{"ip", "-n", end.namespace, "link", "set", "lo", "up"},
			[]string{"ip", "-n", end.namespace, "link", "set", "link0", "up"},
			append([]string{"tc", "-n", end.namespace, "qdisc", "add", "dev", "link0"}, shaped...))
	}
	if err := every(ctx, commands...); err != nil {
		l.remove()
		return nil, err
	}
	return l, nil
}

// bytes is what has left the near end and arrived there, headers included.
func (l *slowLink) bytes(ctx context.Context) (sent, received int64, err error) {
	said, err := output(ctx, "ip", "-n", l.near, "-json", "-statistics", "link", "show", "dev", "link0")
	if err != nil {
		return 0, 0, err
	}
	var links []struct {
		Stats struct{ Rx, Tx struct{ Bytes int64 } } `json:"stats64"`
	}
	if err := json.Unmarshal([]byte(said), &links); err != nil {
		return 0, 0, err
	}
	if len(links) != 1 {
		return 0, 0, fmt.Errorf("ip shows %d links", len(links))
	}
	return links[0].Stats.Tx.Bytes, links[0].Stats.Rx.Bytes, nil
}

// remove deletes the namespaces, and with them the link; the run may have been interrupted.
func (l *slowLink) remove() {
	for _, namespace := range []string{l.near, l.far} {
		_, _ = output(context.Background(), "ip", "netns", "delete", namespace)
	}
}
