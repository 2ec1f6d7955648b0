package replica

import (
	"encoding/json"
	"fmt"
	"strings"

	"vmreplica/agent-replica/chain"
	"vmreplica/internal/replication"
)

// qemuDrivers are QEMU's names of the formats.
var qemuDrivers = map[replication.Format]string{
	replication.FormatRaw: "raw", replication.FormatVHD: "vpc", replication.FormatVHDX: "vhdx", replication.FormatQCOW2: "qcow2",
}

// blockdev is the value of QEMU's -blockdev.
type blockdev struct {
	Driver   string `json:"driver"`
	NodeName string `json:"node-name"`
	Discard  string `json:"discard"`
	File     struct {
		Driver   string `json:"driver"`
		Filename string `json:"filename"`
	} `json:"file"`
}

// qemuArguments attach a disk to a machine on this host, ready for a POSIX shell: a -blockdev and a -device.
func qemuArguments(index int, d chain.Disk, path string) []string {
	node := fmt.Sprintf("disk%d", index)
	block := blockdev{Driver: qemuDrivers[d.Base.ImageFormat()], NodeName: node, Discard: "unmap"}
	block.File.Driver, block.File.Filename = "file", path
	if d.Base.Device != "" {
		block.File.Driver = "host_device"
	}
	value, err := json.Marshal(block)
	if err != nil {
		return nil // strings always are JSON
	}
	device := fmt.Sprintf("virtio-blk-pci,drive=%s,id=%s,write-cache=on", node, node)
	if d.LogicalSectorSize > 512 {
		device += fmt.Sprintf(",logical_block_size=%d,physical_block_size=%d", d.LogicalSectorSize, d.LogicalSectorSize)
	}
	return []string{"-blockdev " + quoted(string(value)), "-device " + quoted(device)}
}

// quoted is text as one word of a POSIX shell.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
