package primary

import (
	"context"

	"vmreplica/agent-primary/attachment"
	"vmreplica/agent-primary/relationship"
	"vmreplica/internal/failure"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// GetAttachment shows how a machine attaches its disks.
func (s *replicationService) GetAttachment(_ context.Context, r *vmreplicav1.GetAttachmentRequest) (*vmreplicav1.Attachment, error) {
	view, err := s.manager.Get(r.GetName())
	if err != nil {
		return nil, err
	}
	answer := &vmreplicav1.Attachment{Socket: s.socket}
	var disks []attachment.Disk
	for i, disk := range view.Disks {
		disks = append(disks, attachment.Disk{ID: disk.ID, LogicalSectorSize: disk.LogicalSectorSize})
		answer.Disks = append(answer.Disks, &vmreplicav1.AttachmentDisk{
			Id: disk.ID, ExportName: relationship.ExportName(view.Name, disk.ID), Uri: attachment.URI(s.socket, view.Name, disk.ID),
			Obstacle: obstacle(s.manager.Obstacle(view.Record, view.Spec.Disks[i])),
		})
	}
	lines, err := attachment.Render(s.socket, view.Name, disks)
	if err != nil {
		return nil, failure.Locate(err, view.Name, "")
	}
	answer.QemuArguments, answer.LibvirtXml, answer.Notes = lines.QEMU, lines.LibvirtXML, lines.Notes
	return answer, nil
}

// obstacle is a failure in sentences; empty for none.
func obstacle(err error) string {
	if err == nil {
		return ""
	}
	found := failure.Find(err)
	if found.Remedy == "" {
		return found.Message
	}
	return found.Message + ". " + found.Remedy
}
