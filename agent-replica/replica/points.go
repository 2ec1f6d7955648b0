package replica

import (
	"context"

	"google.golang.org/grpc"

	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/storage"
	"vmreplica/internal/api"
	"vmreplica/internal/disk"
	"vmreplica/internal/failure"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
	"vmreplica/transport"
)

// pointService shows, reads and deletes recovery points.
type pointService struct {
	vmreplicav1.UnimplementedRecoveryPointServiceServer
	registry *chain.Registry
	storage  *storage.Storage
	requests *requests
}

// pointsOf are a VM's points on the wire, oldest first, the newest content last; none before the first commit.
func pointsOf(record chain.Record, readers []chain.Reader, files *storage.Storage) []*vmreplicav1.RecoveryPoint {
	newest, _, err := record.FindPoint("")
	if err != nil {
		return nil
	}
	var points []*vmreplicav1.RecoveryPoint
	for _, point := range record.Points() {
		shown := pointToProto(point)
		shown.AllocatedBytes = allocatedAfter(record, point, files)
		for _, reader := range readers {
			if !reader.Newest && reader.Point.ID == point.ID {
				shown.Readers++
			}
		}
		points = append(points, shown)
	}
	last := pointToProto(newest)
	last.Latest = true
	for _, reader := range readers {
		if reader.Newest {
			last.Readers++
		}
	}
	return append(points, last)
}

func pointToProto(point chain.Point) *vmreplicav1.RecoveryPoint {
	return &vmreplicav1.RecoveryPoint{Id: string(point.ID), Time: api.TimeToProto(point.Time)}
}

// allocatedAfter is the space of the layers between a point and the next one; -1 when it cannot be known.
func allocatedAfter(record chain.Record, point chain.Point, files *storage.Storage) int64 {
	total := int64(0)
	for _, d := range record.Disks {
		inside := false
		for _, layer := range d.Layers {
			if layer.Point != nil {
				inside = layer.Point.ID == point.ID
			}
			if !inside || layer.State == chain.Receiving {
				continue
			}
			bytes := allocated(files, layer.File)
			if bytes < 0 {
				return -1
			}
			total += bytes
		}
	}
	return total
}

// ListRecoveryPoints shows all of a VM.
func (s *pointService) ListRecoveryPoints(_ context.Context, r *vmreplicav1.ListRecoveryPointsRequest,
) (*vmreplicav1.ListRecoveryPointsResponse, error) {
	record, err := s.registry.Table().Get(r.GetVm())
	if err != nil {
		return nil, err
	}
	points := pointsOf(record, s.registry.VM(record.VM).Readers(), s.storage)
	return &vmreplicav1.ListRecoveryPointsResponse{RecoveryPoints: points}, nil
}

// GetRecoveryPoint shows one.
func (s *pointService) GetRecoveryPoint(_ context.Context, r *vmreplicav1.GetRecoveryPointRequest,
) (*vmreplicav1.RecoveryPoint, error) {
	record, err := s.registry.Table().Get(r.GetVm())
	if err != nil {
		return nil, err
	}
	found, newest, err := record.FindPoint(r.GetId())
	if err != nil {
		return nil, err
	}
	for _, point := range pointsOf(record, s.registry.VM(record.VM).Readers(), s.storage) {
		if point.GetId() == string(found.ID) && point.GetLatest() == newest {
			return point, nil
		}
	}
	return nil, failure.New(failure.NotFound, failure.ReasonNotFound, "the recovery point is not kept any more").On(record.VM, "")
}

// DeleteRecoveryPoint gives one up.
func (s *pointService) DeleteRecoveryPoint(ctx context.Context, r *vmreplicav1.DeleteRecoveryPointRequest,
) (*vmreplicav1.DeleteRecoveryPointResponse, error) {
	return rememberAfter(ctx, s.requests, r, r.GetRequestId(), new(vmreplicav1.DeleteRecoveryPointResponse),
		func() (*vmreplicav1.DeleteRecoveryPointResponse, error) { return s.delete(r) })
}

func (s *pointService) delete(r *vmreplicav1.DeleteRecoveryPointRequest) (*vmreplicav1.DeleteRecoveryPointResponse, error) {
	record, err := s.registry.Table().Get(r.GetVm())
	if err != nil {
		return nil, err
	}
	point, newest, err := record.FindPoint(r.GetId())
	if err != nil {
		return nil, err
	}
	if newest {
		return nil, failure.New(failure.Precondition, failure.ReasonWrongState, "the newest content cannot be deleted").
			On(record.VM, "").Try("Name a recovery point; vmreplica recovery-points %s lists them.", record.VM)
	}
	if _, err := s.registry.VM(record.VM).DropPoint(point.ID); err != nil {
		return nil, err
	}
	return new(vmreplicav1.DeleteRecoveryPointResponse), nil
}

// ReadRecoveryPoint streams a disk of a point, which stays meanwhile.
func (s *pointService) ReadRecoveryPoint(r *vmreplicav1.ReadRecoveryPointRequest,
	stream grpc.ServerStreamingServer[vmreplicav1.ReadRecoveryPointResponse]) (err error) {
	record, err := s.registry.Table().Get(r.GetVm())
	if err != nil {
		return err
	}
	caller, _ := transport.PeerIdentity(stream.Context())
	pin, err := s.registry.VM(record.VM).Pin(r.GetId(), "an export for "+caller.Name)
	if err != nil {
		return err
	}
	defer func() {
		if released := pin.Release(); err == nil {
			err = released
		}
	}()
	id, err := onlyDisk(pin.Record, r.GetDisk())
	if err != nil {
		return err
	}
	reader, err := pin.Disk(id)
	if err != nil {
		return err
	}
	point := pointToProto(pin.Point)
	point.Latest = pin.Newest
	point.AllocatedBytes = allocatedAfter(pin.Record, pin.Point, s.storage)
	header := &vmreplicav1.RecoveryPointHeader{
		RecoveryPoint: point, Disk: id, SizeBytes: reader.Size(), LogicalSectorBytes: uint32(reader.LogicalSectorSize()),
	}
	err = stream.Send(&vmreplicav1.ReadRecoveryPointResponse{
		Message: &vmreplicav1.ReadRecoveryPointResponse_Header{Header: header},
	})
	if err == nil {
		err = sendDisk(reader, stream.Send)
	}
	return failure.Locate(err, record.VM, id)
}

// onlyDisk is the disk that is asked for, or the VM's only one.
func onlyDisk(record chain.Record, asked string) (string, error) {
	switch {
	case asked != "":
		return asked, nil
	case len(record.Disks) == 1:
		return record.Disks[0].ID, nil
	}
	return "", failure.New(failure.Invalid, failure.ReasonInvalidArgument, "the VM has %d disks", len(record.Disks)).
		On(record.VM, "").Try("Name one of them.")
}

// pieceBytes is the most content of one message.
const pieceBytes = 1 << 20

// sendDisk sends a disk's content in order: data in pieces, and how far zeros go.
func sendDisk(reader disk.Reader, send func(*vmreplicav1.ReadRecoveryPointResponse) error) error {
	buffer := make([]byte, min(pieceBytes, reader.Size()))
	for extent, err := range reader.Extents(0, reader.Size()) {
		if err != nil {
			return err
		}
		if extent.Kind != disk.Data {
			if err := send(zerosOf(extent.Offset, extent.Length)); err != nil {
				return err
			}
			continue
		}
		for off := extent.Offset; off < extent.End(); off += int64(len(buffer)) {
			piece := buffer[:min(int64(len(buffer)), extent.End()-off)]
			if _, err := reader.ReadAt(piece, off); err != nil {
				return err
			}
			message := zerosOf(off, int64(len(piece)))
			if !allZero(piece) {
				data := &vmreplicav1.RecoveryPointData{Offset: off, Content: piece}
				message = &vmreplicav1.ReadRecoveryPointResponse{Message: &vmreplicav1.ReadRecoveryPointResponse_Data{Data: data}}
			}
			if err := send(message); err != nil {
				return err
			}
		}
	}
	return nil
}

func zerosOf(off, n int64) *vmreplicav1.ReadRecoveryPointResponse {
	zeros := &vmreplicav1.RecoveryPointZeros{Offset: off, Length: n}
	return &vmreplicav1.ReadRecoveryPointResponse{Message: &vmreplicav1.ReadRecoveryPointResponse_Zeros{Zeros: zeros}}
}

func allZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
