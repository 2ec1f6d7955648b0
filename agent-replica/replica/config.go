package replica

import (
	"flag"

	"vmreplica/internal/daemon"
)

// Config is what the agent is started with.
type Config struct {
	daemon.Common `yaml:",inline"`
	// StorageDir is the directory below which every replica lies.
	StorageDir string `yaml:"storage-dir"`
	// Devices are patterns of the block devices that an authorization entry may map to a disk.
	Devices []string `yaml:"device"`
	// NBDSocket is the unix socket at which recovery points are exported; empty means none.
	NBDSocket string `yaml:"nbd-socket"`
}

var _ daemon.Configuration = (*Config)(nil)

// Defaults are the settings of an agent that is told nothing.
func Defaults() *Config { return &Config{Common: daemon.Defaults(":7443")} }

// Register binds the settings to flags.
func (c *Config) Register(flags *flag.FlagSet) {
	c.Common.Register(flags)
	flags.StringVar(&c.StorageDir, "storage-dir", c.StorageDir,
		"`directory` of the replicas; a disk lies at DIRECTORY/PRIMARY/VM/DISK")
	daemon.List(flags, &c.Devices, "device",
		"block devices, by a `pattern` like /dev/vg0/replica-*, that an authorization may map to a disk")
	flags.StringVar(&c.NBDSocket, "nbd-socket", c.NBDSocket,
		"export recovery points for reading over NBD, as VM/DISK and VM/DISK@POINT, at the unix socket `path`")
}

// Check refuses what is missing.
func (c *Config) Check() error {
	if err := c.Common.Check(); err != nil {
		return err
	}
	if c.StorageDir == "" {
		return daemon.Missing("storage-dir")
	}
	return nil
}
