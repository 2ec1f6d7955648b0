package command

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"vmreplica/cmd/vmreplica/render"
	"vmreplica/internal/failure"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// The forms in which attach-info writes.
const (
	formQEMU    = "qemu"
	formLibvirt = "libvirt"
)

func (v *invocation) attachInfo() *cobra.Command {
	var form string
	command := &cobra.Command{
		Use:   "attach-info VM",
		Short: "Show how a machine attaches its disks, so that its writes are tracked.",
		Long: `Show how a machine attaches its disks, so that its writes are tracked.

Use it after "enable", on the primary, and start the machine with what it prints instead of with the images
themselves: QEMU's arguments ready for a shell, or the elements for libvirt's domain XML. What must be known before
the machine is started stands on standard error. With -o json there are the socket and the exports too.`,
		Example: `  vmreplica attach-info web01
  vmreplica attach-info web01 --form libvirt > web01-disks.xml
  vmreplica attach-info web01 -o json`,
		GroupID: groupReplicate, Args: cobra.ExactArgs(1),
		RunE: v.ofVM(func(ctx context.Context, vm string) error {
			if form != formQEMU && form != formLibvirt {
				return misused("there is no form %q", form).Try("Give --form %s or --form %s.", formQEMU, formLibvirt)
			}
			return v.runAttachInfo(ctx, vm, form)
		}),
	}
	command.Flags().StringVar(&form, "form", formQEMU, "`FORM` of the lines: qemu or libvirt")
	complete(command, "form", formQEMU, formLibvirt)
	return command
}

// runAttachInfo writes what can be attached; one disk that cannot is a failure, because a machine would miss it.
func (v *invocation) runAttachInfo(ctx context.Context, vm, form string) error {
	found, err := v.replications().GetAttachment(ctx, &vmreplicav1.GetAttachmentRequest{Name: vm})
	if err != nil {
		return err
	}
	if err := v.printer.Message(found, func(page *render.Page) {
		if form == formLibvirt {
			page.Block(found.GetLibvirtXml())
			return
		}
		page.Continued(found.GetQemuArguments())
	}); err != nil || v.printer.ForMachines() {
		return err
	}
	for _, note := range found.GetNotes() {
		v.Note("%s", commented(form, note))
	}
	var obstacles []string
	for _, disk := range found.GetDisks() {
		if disk.GetObstacle() != "" {
			obstacles = append(obstacles, "disk "+disk.GetId()+": "+disk.GetObstacle())
		}
	}
	if len(obstacles) > 0 {
		return failure.New(failure.Precondition, failure.ReasonUnsupported, "it cannot be attached whole: %s",
			strings.Join(obstacles, "; ")).On(vm, "").
			Try("A machine whose disks are not attached is replicated while it is off, by its images' stamps.")
	}
	return nil
}

// commented is a sentence that does no harm where it is pasted together with the lines.
func commented(form, note string) string {
	if form == formLibvirt {
		return "<!-- " + strings.ReplaceAll(note, "--", "- -") + " -->"
	}
	return "# " + note
}
