package command

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"vmreplica/cmd/vmreplica/render"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// exportFlags say what is read and where it goes.
type exportFlags struct {
	point, disk, target string
	force               bool
}

func (v *invocation) export() *cobra.Command {
	flags := &exportFlags{}
	command := &cobra.Command{
		Use:   "export VM FILE|DIR",
		Short: "Read a VM's disks as a recovery point has them, into raw files here.",
		Long: `Read a VM's disks as a recovery point has them, into raw files here.

Use it to look into a replica or to take files out of one, while replication goes on: nothing of the replica changes,
and the point stays while it is read. FILE is written sparse beside its name, and gets it when it is whole; one that
exists is refused without --force. Into a directory every disk is written, all of one instant, as DIR/DISK.raw; a VM
of several disks needs one, or --disk.`,
		Example: `  vmreplica --server replica.example:7443 export web01 web01.raw
  vmreplica --server replica.example:7443 export web01 --point 4f1c0e8a5b7d --disk data.img /tmp/data.raw
  vmreplica --server replica.example:7443 export db01 /srv/exports/`,
		GroupID: groupRecover, Args: cobra.ExactArgs(2),
		RunE: func(command *cobra.Command, args []string) error {
			flags.target = args[1]
			return v.ofVM(func(ctx context.Context, vm string) error { return v.runExport(ctx, vm, flags) })(command, args[:1])
		},
	}
	command.Flags().StringVar(&flags.point, "point", "", "the recovery point, by its `ID` or an unambiguous beginning (default the newest content)")
	command.Flags().StringVar(&flags.disk, "disk", "", "the disk alone, by its `ID`")
	command.Flags().BoolVar(&flags.force, "force", false, "replace files that exist")
	return command
}

// exported is one disk on its way into a file.
type exported struct {
	file   *exportFile
	source *pointStream
}

func (v *invocation) runExport(ctx context.Context, vm string, flags *exportFlags) (err error) {
	names, directory, err := v.exportNames(ctx, vm, flags)
	if err != nil {
		return err
	}
	dir, err := durable.OpenDir(directory)
	if err != nil {
		return unwritable(err)
	}
	defer dir.Close()
	for _, target := range names {
		if err := checkTarget(dir, target.file, flags.force); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sources, err := v.openPoint(ctx, vm, flags.point, names)
	if err != nil {
		return err
	}
	var disks []exported
	defer func() {
		for _, disk := range disks {
			err = errors.Join(err, disk.file.discard())
		}
	}()
	for i, source := range sources {
		file, err := createExport(dir, names[i].file, v.requestID, source.header.GetSizeBytes())
		if err != nil {
			return err
		}
		disks = append(disks, exported{file, source})
	}
	if err := v.readPoint(ctx, disks); err != nil {
		return err
	}
	if err := keepAll(disks, flags.force); err != nil {
		return err
	}
	return v.printExport(vm, disks)
}

// keepAll gives every disk's file its name, once all of them are whole.
func keepAll(disks []exported, force bool) error {
	for _, disk := range disks {
		if err := disk.file.keep(force); err != nil {
			return err
		}
	}
	return nil
}

// exportTarget is a disk's id, empty for the VM's only one, and the name of its file.
type exportTarget struct{ disk, file string }

// exportNames decides which disks are written to which files of which directory. The ids are the agent's word and become
// names of files here, so their form is checked.
func (v *invocation) exportNames(ctx context.Context, vm string, flags *exportFlags) (names []exportTarget, directory string, err error) {
	r, err := v.replications().GetReplication(ctx, &vmreplicav1.GetReplicationRequest{Name: vm})
	if err != nil {
		return nil, "", err
	}
	for _, disk := range r.GetStatus().GetDisks() {
		if err := replication.CheckName("disk", disk.GetId()); err != nil {
			return nil, "", failure.New(failure.Corrupt, failure.ReasonProtocol, "the agent's answer: %w", err).On(vm, "").
				Try("Bring agent and command to one release.")
		}
		if flags.disk == "" || flags.disk == disk.GetId() {
			names = append(names, exportTarget{disk.GetId(), disk.GetId() + ".raw"})
		}
	}
	if len(names) == 0 {
		return nil, "", failure.New(failure.NotFound, failure.ReasonNotFound, "there is no disk %q", flags.disk).On(vm, "").
			Try("Which there are: %s", v.typed("describe %s", vm))
	}
	about, err := os.Stat(flags.target)
	switch {
	case err == nil && about.IsDir():
		return names, flags.target, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, "", unwritable(err)
	case len(names) > 1:
		return nil, "", misused("the VM %s has %d disks and %s is no directory", vm, len(names), flags.target).
			Try("Give a directory that exists for all of them, or --disk %s for one.", names[0].disk)
	}
	names[0].file = filepath.Base(flags.target)
	return names, filepath.Dir(flags.target), nil
}

// mostOpenings is how often the streams of several disks are opened anew because a cycle came between them.
const mostOpenings = 5

// openPoint opens a stream for each disk, all at one point. The newest content may be replaced between two openings.
func (v *invocation) openPoint(ctx context.Context, vm, point string, names []exportTarget) ([]*pointStream, error) {
	for range mostOpenings {
		var opened []*pointStream
		alike := true
		for _, target := range names {
			source, err := v.openPointStream(ctx, vm, point, target.disk)
			if err != nil {
				closeAll(opened)
				return nil, err
			}
			opened = append(opened, source)
			alike = alike && source.point() == opened[0].point()
		}
		if alike {
			return opened, nil
		}
		closeAll(opened)
	}
	return nil, failure.New(failure.Conflict, failure.ReasonWrongState,
		"the newest content was replaced %d times while its disks were opened", mostOpenings).On(vm, "").
		Try("Repeat it, or choose a point that stays: %s", v.typed("recovery-points %s", vm))
}

func closeAll(streams []*pointStream) {
	for _, stream := range streams {
		stream.close()
	}
}

// readPoint copies all disks at once, with progress, until all are whole or one has failed.
func (v *invocation) readPoint(ctx context.Context, disks []exported) error {
	copying := render.NewCopying(v.Err, render.IsTerminal(v.Err), v.Now)
	defer copying.Close()
	group, ctx := errgroup.WithContext(ctx)
	for _, disk := range disks {
		group.Go(func() error {
			defer disk.source.close()
			defer context.AfterFunc(ctx, disk.source.close)()
			return disk.source.copyTo(disk.file)
		})
	}
	ended := make(chan error, 1)
	go func() { ended <- group.Wait() }()
	ticker := time.NewTicker(watchTick)
	defer ticker.Stop()
	show := func() {
		for _, disk := range disks {
			copying.Show(disk.source.header.GetDisk(), disk.source.copied.Load(), disk.source.header.GetSizeBytes())
		}
	}
	for {
		show()
		select {
		case err := <-ended:
			show()
			return err
		case <-ticker.C:
		}
	}
}

// exportedDisk is what was written, for programs.
type exportedDisk struct {
	Disk          string    `json:"disk"`
	File          string    `json:"file"`
	SizeBytes     int64     `json:"sizeBytes"`
	RecoveryPoint string    `json:"recoveryPoint"`
	PointTime     time.Time `json:"pointTime"`
}

func (v *invocation) printExport(vm string, disks []exported) error {
	var written []exportedDisk
	for _, disk := range disks {
		header := disk.source.header
		written = append(written, exportedDisk{header.GetDisk(), disk.file.path(), header.GetSizeBytes(),
			disk.source.point(), header.GetRecoveryPoint().GetTime().AsTime()})
	}
	return v.printer.Value(struct {
		VM    string         `json:"vm"`
		Disks []exportedDisk `json:"disks"`
	}{vm, written}, func(page *render.Page) {
		for _, disk := range written {
			page.Line("Disk %s of the VM %s as it was at %s (%s) is in %s, %s.", disk.Disk, vm,
				render.Moment(disk.PointTime, v.Now()), disk.RecoveryPoint, disk.File, render.Size(disk.SizeBytes))
		}
	})
}

// unwritable is a file that cannot be written here.
func unwritable(err error) error {
	if errors.Is(err, io.ErrShortWrite) || isFull(err) {
		return failure.New(failure.Exhausted, failure.ReasonStorageFull, "no room for the export: %w", err).
			Try("Free space there, or export to another filesystem.")
	}
	return failure.New(failure.Precondition, failure.ReasonStorageFailed, "the export cannot be written: %w", err).
		Try("Give a file in a directory that exists and that you may write to.")
}
