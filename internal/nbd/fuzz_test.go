package nbd_test

import (
	"io"
	"net"
	"testing"

	"vmreplica/internal/nbd"
)

// FuzzConversation sends any bytes to a server, as the client's whole conversation, and takes what it answers. The
// server ends the connection, writes nothing outside the export and serves the next client.
func FuzzConversation(f *testing.F) {
	handshake := pack(uint32(3), "IHAVEOPT", uint32(optStructured), uint32(0),
		"IHAVEOPT", uint32(optSetMeta), uint32(len(queries("disk", "base:allocation"))), queries("disk", "base:allocation"),
		"IHAVEOPT", uint32(optGo), uint32(12), named("disk"), uint16(1), uint16(3))
	f.Add(pack(uint32(1), "IHAVEOPT", uint32(optExportName), uint32(4), "disk",
		request{command: write, offset: 4095, length: 1, payload: []byte{1}}.packed()))
	f.Add(pack(uint32(3), "IHAVEOPT", uint32(optList), uint32(0), "IHAVEOPT", uint32(optAbort), uint32(0)))
	for command := range uint16(9) {
		for flags := range uint16(6) {
			r := request{command: command, flags: flags, offset: 512, length: 1024}
			f.Add(pack(handshake, r.packed(), make([]byte, 1024), request{command: disc}.packed()))
		}
	}
	export := newMemory(4096)
	r := one(f, nbd.Options{List: func() []string { return []string{"disk"} }}, export)
	f.Fuzz(func(t *testing.T, conversation []byte) {
		c := connect(t, r)
		if _, err := c.Write(conversation); err == nil {
			_ = c.Conn.(*net.UnixConn).CloseWrite() // fails where the server has ended the connection
		}
		_, _ = io.Copy(io.Discard, c) // ends with the connection, by whatever error
		must(t, c.Close())
		enter(t, r, true).inStep()
	})
}
