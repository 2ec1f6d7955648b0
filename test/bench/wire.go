package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
)

// wireCount is what the kernel counted on each of the primary's connections to the replica, by the local address:
// TCP's payload, TLS included, both directions.
type wireCount map[string]int64

var (
	socketBytes = regexp.MustCompile(`\bbytes_(?:sent|received):(\d+)`)
	socketRetry = regexp.MustCompile(`\bbytes_retrans:(\d+)`)
)

// countWire asks the kernel for the primary's connections to the replica.
func countWire(ctx context.Context, replicaAddress string) (wireCount, error) {
	_, port, err := net.SplitHostPort(replicaAddress)
	if err != nil {
		return nil, err
	}
	said, err := output(ctx, "ss", "--tcp", "--info", "--numeric", "--no-header", "--oneline",
		"state", "established", "dport", "=", ":"+port)
	if err != nil {
		return nil, err
	}
	return parseSockets(said)
}

// parseSockets reads what ss says, a socket a line.
func parseSockets(said string) (wireCount, error) {
	count := wireCount{}
	for line := range strings.Lines(said) {
		fields := strings.Fields(line)
		if len(fields) < 4 {
			continue
		}
		moved, err := sumFigures(socketBytes, line)
		if err != nil {
			return nil, err
		}
		again, err := sumFigures(socketRetry, line)
		if err != nil {
			return nil, err
		}
		count[fields[2]] = moved - again
	}
	return count, nil
}

// sumFigures adds the numbers that a pattern's group matches.
func sumFigures(pattern *regexp.Regexp, line string) (int64, error) {
	total := int64(0)
	for _, found := range pattern.FindAllStringSubmatch(line, -1) {
		n, err := strconv.ParseInt(found[1], 10, 64)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// since is what crossed the wire since an earlier count. A connection that ended in between would be lost from it.
func (c wireCount) since(before wireCount) (int64, error) {
	total := int64(0)
	for local, n := range c {
		total += n - before[local]
	}
	for local := range before {
		if _, is := c[local]; !is {
			return 0, fmt.Errorf("the connection from %s ended before it was counted", local)
		}
	}
	if len(c) == 0 {
		return 0, errors.New("the kernel shows no connection to the replica")
	}
	return total, nil
}
