package attachment

import (
	"fmt"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// How long a machine waits for the agent, in seconds. An agent that is restarted or upgraded is away for less.
const (
	reconnectDelay = 60 // for a connection that was lost: requests wait that long, then the machine is paused
	openTimeout    = 30 // for the first connection
)

// Disk is one that the machine attaches.
type Disk struct {
	ID                string
	LogicalSectorSize int // bytes
}

// Lines are what an operator needs for one machine.
type Lines struct {
	// QEMU are its arguments, quoted for a POSIX shell: for each disk one -blockdev with its value, then one -device.
	QEMU []string
	// LibvirtXML has two forms of the same, of which one is used.
	LibvirtXML string
	// Notes are sentences: what must be known before the machine is started.
	Notes []string
}

// Render writes the lines for disks, in their order, of a VM whose agent listens at socket. It fails for names and paths
// that no shell, JSON or XML could carry: an absolute path of printable characters is needed.
func Render(socket, vm string, disks []Disk) (Lines, error) {
	if err := check(socket, vm, disks); err != nil {
		return Lines{}, err
	}
	exported := make([]export, len(disks))
	for i, d := range disks {
		exported[i] = export{Disk: d, socket: socket, name: Export(vm, d.ID), node: node(d.ID), target: target(i)}
	}
	var lines Lines
	for _, e := range exported {
		lines.QEMU = append(lines.QEMU, "-blockdev "+quote(e.blockdev()), "-device "+quote(e.device()))
	}
	lines.LibvirtXML = libvirtXML(exported)
	lines.Notes = notes()
	return lines, nil
}

// Export is the name of a disk's NBD export.
func Export(vm, disk string) string { return vm + "/" + disk }

// export is one disk as it is rendered.
type export struct {
	Disk
	socket, name, node string
	target             string // the device's name for libvirt, a hint of the order
}

func check(socket, vm string, disks []Disk) error {
	if !filepath.IsAbs(socket) || !utf8.ValidString(socket) || strings.ContainsFunc(socket, unprintable) {
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument,
			"the NBD socket %q is not an absolute path of printable characters", socket).
			Try("Start the agent with another --nbd-socket.")
	}
	if err := replication.CheckName("VM", vm); err != nil {
		return err
	}
	for _, d := range disks {
		if err := replication.CheckName("disk", d.ID); err != nil {
			return err
		}
	}
	return nil
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// target is vda, vdb … vdz, vdaa …
func target(i int) string {
	letters := ""
	for i++; i > 0; i = (i - 1) / 26 {
		letters = string(rune('a'+(i-1)%26)) + letters
	}
	return "vd" + letters
}

func notes() []string {
	return []string{
		"Attach all disks of the machine that are replicated, each through the agent: a cut is one instant of all of them.",
		"These lines take the place of those that name the images; in libvirt's XML take out each <disk> that has an image as " +
			"its <source>. A machine that opens an image itself is not tracked, and the agent's locks refuse it while it has " +
			"the image open.",
		fmt.Sprintf("QEMU waits %d seconds for the agent when it starts. When the agent goes away, the machine's I/O waits %d "+
			"seconds for its return; after that werror=stop and rerror=stop pause the machine, which sees no I/O error and loses "+
			"nothing: continue it with the monitor's cont, or virsh resume.", openTimeout, reconnectDelay),
		"The user that QEMU runs as must be root, the agent's own or one given to the agent with --nbd-user: for libvirt on " +
			"Debian that is --nbd-user libvirt-qemu. An AppArmor or SELinux policy of the host must let QEMU connect to the socket.",
		"An external snapshot above one of these disks takes the machine's writes past the agent: they are neither tracked " +
			"nor replicated until it is committed.",
		"Of libvirt's two forms use one. libvirt 9.0, that of Debian 12, and older know no reconnect delay for NBD and need " +
			"the arguments for QEMU. The disks of newer ones have no waiting for the first connection: start the agent before " +
			"the machine, and give targets that no other disk of the machine has.",
		"Under libvirt the disks in the arguments have no boot order, and a machine starts from them only when none of its " +
			"other devices has one: take its <boot> elements out.",
	}
}
