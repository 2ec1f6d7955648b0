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
}

// NewConfig holds the defaults.
func NewConfig() *Config { return &Config{Common: daemon.Defaults("127.0.0.1:7442")} }

// Register binds the settings to flags.
func (c *Config) Register(flags *flag.FlagSet) {
	c.Common.Register(flags)
	daemon.List(flags, &c.ImageDirs, "image-dir", "images below this `directory` may be replicated; no others are ever opened")
	daemon.List(flags, &c.Devices, "device", "block devices that match this `pattern`, as in '/dev/vg0/vm-*', may be replicated")
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
	return nil
}
