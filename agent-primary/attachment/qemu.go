package attachment

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"strings"
)

// maxNodeName is QEMU's limit: its array of 32 bytes ends in a zero.
const maxNodeName = 31

// node is the QEMU name of a disk: letters, digits and ._- after a letter. One that is too long is cut and gets a digest;
// its different prefix keeps it apart from all that are not.
func node(disk string) string {
	const short, long, digits = "vmr-", "vmrx-", 12
	if len(short+disk) <= maxNodeName {
		return short + disk
	}
	digest := sha256.Sum256([]byte(disk))
	return long + disk[:maxNodeName-len(long)-digits-1] + "-" + hex.EncodeToString(digest[:])[:digits]
}

// URI is where an NBD client finds a disk.
func URI(socket, vm, disk string) string {
	// Not every reader of such a URI takes + for a space.
	return "nbd+unix:///" + Export(vm, disk) + "?socket=" + strings.ReplaceAll(url.QueryEscape(socket), "+", "%20")
}

// blockdev is the value of QEMU's -blockdev. The cache of the host is left out and flushes are passed on: what the
// guest flushed is on the primary's disk. Zeros are not looked for, as the agent tracks what the guest writes.
func (e export) blockdev() string {
	type server struct {
		Type string `json:"type"`
		Path string `json:"path"`
	}
	type cache struct {
		Direct  bool `json:"direct"`
		NoFlush bool `json:"no-flush"`
	}
	return encoded(struct {
		Driver         string `json:"driver"`
		Node           string `json:"node-name"`
		Server         server `json:"server"`
		Export         string `json:"export"`
		ReconnectDelay int    `json:"reconnect-delay"`
		OpenTimeout    int    `json:"open-timeout"`
		Discard        string `json:"discard"`
		DetectZeroes   string `json:"detect-zeroes"`
		Cache          cache  `json:"cache"`
	}{
		"nbd", e.node, server{"unix", e.socket}, e.name, reconnectDelay, openTimeout, "unmap", "off", cache{Direct: true},
	})
}

// device is the value of QEMU's -device. Its write cache is one that the guest flushes. In JSON, because QEMU makes such
// devices after all others: libvirt gives its own fixed places on the bus, and one of them would be taken.
func (e export) device() string {
	sector := 0
	if e.LogicalSectorSize > 512 {
		sector = e.LogicalSectorSize
	}
	return encoded(struct {
		Driver     string `json:"driver"`
		Drive      string `json:"drive"`
		ID         string `json:"id"`
		WriteCache string `json:"write-cache"`
		WriteError string `json:"werror"`
		ReadError  string `json:"rerror"`
		Logical    int    `json:"logical_block_size,omitempty"`
		Physical   int    `json:"physical_block_size,omitempty"`
	}{"virtio-blk-pci", e.node, e.node, "on", "stop", "stop", sector, sector})
}

// encoded is a struct of strings, numbers and booleans, of which nothing can fail, as JSON in a line.
func encoded(value any) string {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(value)
	return strings.TrimSuffix(text.String(), "\n")
}

// quote makes text one word of a POSIX shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
