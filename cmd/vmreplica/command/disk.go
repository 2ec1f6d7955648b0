package command

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"vmreplica/cmd/vmreplica/render"
	"vmreplica/internal/disk"
	"vmreplica/internal/disk/format"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/disk/stack"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

func (v *invocation) disk() *cobra.Command {
	command := &cobra.Command{
		Use:   "disk",
		Short: "Look into a disk image on this host.",
		Long: `Look into a disk image on this host.

Use it where the file lies; no agent is asked and nothing is written. The format is stated with --format, never
guessed: a guest could make a raw image look like any other. An image that a machine has open for writing is refused.`,
		Example: `  vmreplica disk info  /images/web01.vhdx  --format vhdx
  vmreplica disk check /images/db01.qcow2  --format qcow2
  vmreplica disk map   /images/web01.avhdx --format vhdx -o json`,
		GroupID: groupLook, Args: cobra.NoArgs, RunE: showHelp,
	}
	command.AddCommand(v.diskInfo(), v.diskCheck(), v.diskMap())
	return command
}

func (v *invocation) diskInfo() *cobra.Command {
	return v.ofImage(&cobra.Command{
		Use:   "info FILE",
		Short: "Show what an image says of itself.",
		Long: `Show what an image says of itself.

Use it to see a disk's size and sectors, the identifiers by which a child knows its parent, the parent that a
differencing disk names (which is not opened), whether its last user closed it, and how much of it is data.`,
		Example: `  vmreplica disk info /images/web01.vhdx --format vhdx
  vmreplica disk info /images/web01.qcow2 --format qcow2 -o json`,
	}, v.runDiskInfo)
}

func (v *invocation) diskCheck() *cobra.Command {
	return v.ofImage(&cobra.Command{
		Use:   "check FILE",
		Short: "Check whether an image is consistent.",
		Long: `Check whether an image is consistent.

Use it before an image is trusted, or after its host has crashed. Each finding says what is wrong and where in the
file: "damaged" means that content is or may become wrong, "leaked" that space belongs to nothing. The exit code is 0
when there is none and 1 when there are. With -o json each finding is one line. Nothing is repaired.`,
		Example: `  vmreplica disk check /images/web01.vhdx --format vhdx
  vmreplica disk check /images/web01.qcow2 --format qcow2 -o json | jq -r .message`,
	}, v.runDiskCheck)
}

func (v *invocation) diskMap() *cobra.Command {
	return v.ofImage(&cobra.Command{
		Use:   "map FILE",
		Short: "Show which ranges of a disk an image holds.",
		Long: `Show which ranges of a disk an image holds.

Use it to see what a resync has to read. Offsets and lengths are bytes of the disk; a range is data, zero (allocated
and reads as zeros), unmapped (reads as zeros without space) or, in a differencing disk, absent: left to the parent.
With -o json each range is one line.`,
		Example: `  vmreplica disk map /images/web01.vhdx --format vhdx
  vmreplica disk map /images/web01.qcow2 --format qcow2 -o json | jq -s 'map(select(.kind == "data").length) | add'`,
	}, v.runDiskMap)
}

// ofImage completes a verb whose one argument is an image file of a stated format.
func (v *invocation) ofImage(command *cobra.Command, run func(image) error) *cobra.Command {
	var stated string
	command.Args = cobra.ExactArgs(1)
	command.RunE = func(_ *cobra.Command, args []string) error {
		f, err := statedFormat(args[0], stated)
		if err != nil {
			return err
		}
		v.given = true
		return withImage(args[0], f, run)
	}
	command.Flags().StringVar(&stated, "format", "", "`FORMAT` of the image: "+formatNames+"; it is never guessed")
	complete(command, "format", diskFormatNames()...)
	return command
}

// statedFormat refuses a format that is none, with what the file's name suggests.
func statedFormat(path, stated string) (replication.Format, error) {
	f := replication.Format(stated)
	if f.Known() {
		return f, nil
	}
	example := format.Guess(path)
	if example == "" {
		example = replication.FormatRaw
	}
	if stated == "" {
		return "", misused("the format of %s is not stated, and none is guessed", path).
			Try("State it: --format %s, or another of %s.", example, formatNames)
	}
	return "", misused("the disk format %q is not known", stated).Try("State one of %s, as in --format %s.", formatNames, example)
}

// formatNames are the formats in a sentence.
const formatNames = "raw, vhd, vhdx or qcow2"

func diskFormatNames() []string {
	var names []string
	for _, f := range replication.Formats {
		names = append(names, string(f))
	}
	return names
}

// image is a file of a stated format, open for reading.
type image struct {
	path   string
	format replication.Format
	file   durable.File
}

// withImage opens a file for run.
func withImage(path string, f replication.Format, run func(image) error) error {
	about, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return failure.New(failure.NotFound, failure.ReasonImageMissing, "there is no file %s", path).
			Try("Give the path as it is on this host.")
	case err != nil:
		return cannotRead(err)
	case !about.Mode().IsRegular() && about.Mode().Type() != fs.ModeDevice:
		return cannotRead(errors.New(path + " is neither a file nor a block device"))
	}
	file, err := os.Open(path)
	if err != nil {
		return cannotRead(err)
	}
	defer file.Close()
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	return run(image{path: path, format: f, file: durable.NewFile(file)})
}

func cannotRead(err error) error {
	return failure.New(failure.Precondition, failure.ReasonImageUnreadable, "the image cannot be read: %w", err)
}

// open makes the image readable, locked against writers. Closing the part closes the file.
func (i image) open() (*format.Part, error) {
	return format.OpenPart(i.file, i.format, format.Options{Path: i.path})
}

func (v *invocation) runDiskInfo(i image) error {
	info, err := format.Describe(i.file, i.format, i.path)
	if err != nil {
		return err
	}
	shown := render.DiskInfo{Path: i.path, Info: info, HostBytes: -1}
	part, err := i.open()
	switch {
	case err != nil && failure.Find(err).Class == failure.Unsupported:
		shown.Unreadable = strings.TrimPrefix(failure.Find(err).Message, i.path+": ")
		return v.printer.DiskInfo(shown)
	case err != nil:
		return err
	}
	defer part.Close()
	if host, known := part.AllocatedBytes(); known {
		shown.HostBytes = host
	}
	shown.Sums = map[disk.Kind]int64{}
	for extent, err := range part.Extents(0, part.Size()) {
		if err != nil {
			return cannotRead(err)
		}
		shown.Sums[extent.Kind] += extent.Length
	}
	return v.printer.DiskInfo(shown)
}

func (v *invocation) runDiskCheck(i image) error {
	if fd, ok := i.file.Fd(); ok {
		if err := imagelock.Lock(fd, i.path, imagelock.Read); err != nil {
			return err
		}
	}
	var leaked, damaged int64
	for finding, err := range format.Check(i.file, i.format, i.path) {
		if err != nil {
			return err
		}
		if finding.Severity == disk.Leaked {
			leaked++
		} else {
			damaged++
		}
		if err := v.printer.Finding(finding); err != nil {
			return err
		}
	}
	if err := v.printer.Checked(i.path, leaked, damaged); err != nil || leaked+damaged == 0 {
		return err
	}
	return exit{ExitFailed}
}

func (v *invocation) runDiskMap(i image) error {
	part, err := i.open()
	if err != nil {
		return err
	}
	defer part.Close()
	buffered := bufio.NewWriter(v.Out)
	printer := v.printer
	printer.Out = buffered
	err = printer.MapHeading()
	for extent, walked := range stack.Joined(part.Extents(0, part.Size())) {
		if walked != nil {
			return errors.Join(cannotRead(walked), buffered.Flush())
		}
		if err == nil {
			err = printer.Extent(extent)
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(err, buffered.Flush())
}
