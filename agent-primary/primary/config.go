package primary

import (
	"flag"

	"vmreplica/internal/daemon"
	"vmreplica/internal/failure"
)

// Config is what the agent is told at its start.
type Config struct {
	daemon.Common `yaml:",inline"`
	// ImageDirs are the directories whose images may be opened, Devices patterns of the block devices that may.
	ImageDirs []string `yaml:"image-dir"`
	Devices   []string `yaml:"device"`
	// NBDSocket is where machines attach their disks; empty means nbd.sock in the state directory. NBDUsers may connect
	// beside root and the agent's own user.
	NBDSocket string   `yaml:"nbd-socket"`
	NBDUsers  []string `yaml:"nbd-user"`
	// CopyBeforeWriteMiB bounds the memory that keeps cuts readable while machines write, of all VMs.
	CopyBeforeWriteMiB int `yaml:"copy-before-write-mib"`
	// QMPSockets are patterns of the machines' monitors that may be asked.
	QMPSockets []string `yaml:"qmp-socket"`
}

// defaultCopyBeforeWriteMiB is enough for a cut of a few gigabytes under a moderate load.
const defaultCopyBeforeWriteMiB = 256

// NewConfig holds the defaults.
func NewConfig() *Config {
	return &Config{Common: daemon.Defaults("127.0.0.1:7442"), CopyBeforeWriteMiB: defaultCopyBeforeWriteMiB}
}

// Register binds the settings to flags.
func (c *Config) Register(flags *flag.FlagSet) {
	c.Common.Register(flags)
	daemon.List(flags, &c.ImageDirs, "image-dir", "images below this `directory` may be replicated; no others are ever opened")
	daemon.List(flags, &c.Devices, "device", "block devices that match this `pattern`, as in '/dev/vg0/vm-*', may be replicated")
	flags.StringVar(&c.NBDSocket, "nbd-socket", c.NBDSocket,
		"unix `socket` at which machines attach their disks (nbd.sock in the state directory, or the one that systemd hands over)")
	daemon.List(flags, &c.NBDUsers, "nbd-user", "this `user` may attach disks, beside root and the agent's own, as in libvirt-qemu")
	flags.IntVar(&c.CopyBeforeWriteMiB, "copy-before-write-mib", c.CopyBeforeWriteMiB,
		"`MiB` of memory that keep a cut readable while its machine writes on, for all machines together")
	daemon.List(flags, &c.QMPSockets, "qmp-socket",
		"monitors of machines that match this `pattern`, as in '/run/qemu/*.qmp', may be asked for external snapshots")
}

// Check says what is missing or cannot be.
func (c *Config) Check() error {
	if err := c.Common.Check(); err != nil {
		return err
	}
	if len(c.ImageDirs) == 0 && len(c.Devices) == 0 {
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "neither --image-dir nor --device is given").
			Try("Say which images may be replicated: --image-dir /var/lib/libvirt/images")
	}
	if c.CopyBeforeWriteMiB < 1 || c.CopyBeforeWriteMiB > maxCopyBeforeWriteMiB {
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "--copy-before-write-mib %d is not between 1 and %d",
			c.CopyBeforeWriteMiB, maxCopyBeforeWriteMiB)
	}
	return nil
}

// maxCopyBeforeWriteMiB is 1 TiB.
const maxCopyBeforeWriteMiB = 1 << 20
