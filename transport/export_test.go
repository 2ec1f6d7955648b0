package transport

import (
	"log/slog"
	"time"
)

// What the tests of other packages' eyes cannot reach.
const (
	MaxHandshakesOfHost      = maxHandshakesOfHost
	MaxConnectionsOfIdentity = maxConnectionsOfIdentity
	MaxHeaderSize            = maxHeaderSize
	NotSentLowat             = notSentLowat
)

// LoadCredentialsAt loads with a clock of one's own.
func LoadCredentialsAt(dir string, log *slog.Logger, now func() time.Time) (*Credentials, error) {
	return loadCredentials(dir, log, now)
}

// Look is one look of Watch.
func (c *Credentials) Look() { c.look() }

// Connections is how many connections are registered.
func (c *Credentials) Connections() int {
	c.connections.mu.Lock()
	defer c.connections.mu.Unlock()
	return len(c.connections.open)
}

// Serial tells the certificate in use from another.
func (c *Credentials) Serial() string { return c.current.Load().certificate.Leaf.SerialNumber.String() }

func discardLog() *slog.Logger { return slog.New(slog.DiscardHandler) }
