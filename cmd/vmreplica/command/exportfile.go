package command

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"sync/atomic"
	"syscall"

	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// Bounds of what a stream may say, in bytes.
const (
	maxDiskBytes  = 64 << 40
	maxChunkBytes = 1 << 20
	sectorBytes   = 512
)

// exportFile is a raw image that is being written under a name of its own and gets its name when it is whole.
type exportFile struct {
	durable.File
	dir             durable.Dir
	temporary, name string
	// kept says that the file has its name; closed that nothing is open any more.
	kept, closed bool
}

// checkTarget refuses a file that exists unless it may be replaced, and what is no file always.
func checkTarget(dir durable.Dir, name string, force bool) error {
	about, err := dir.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return unwritable(err)
	case !about.Mode().IsRegular():
		return failure.New(failure.Precondition, failure.ReasonAlreadyExists, "%s is no file", dir.Path(name)).
			Try("Give another name; an export is written to files alone.")
	case force:
		return nil
	}
	return failure.New(failure.Exists, failure.ReasonAlreadyExists, "%s exists", dir.Path(name)).
		Try("Give another name, or --force to replace it.")
}

// createExport makes an empty image of a size beside its name. It reads as zeros and takes no space yet.
func createExport(dir durable.Dir, name, unique string, size int64) (*exportFile, error) {
	e := &exportFile{dir: dir, name: name, temporary: name + "." + replication.ID(unique).Short() + ".part"}
	var err error
	if e.File, err = dir.Create(e.temporary); err != nil {
		return nil, unwritable(err)
	}
	if err := e.Truncate(size); err != nil {
		return nil, errors.Join(unwritable(err), e.discard())
	}
	return e, nil
}

func (e *exportFile) path() string { return e.dir.Path(e.name) }

// keep makes the image durable and gives it its name.
func (e *exportFile) keep(force bool) error {
	if err := e.Sync(); err != nil {
		return unwritable(err)
	}
	e.closed = true
	if err := e.Close(); err != nil {
		return unwritable(err)
	}
	if err := checkTarget(e.dir, e.name, force); err != nil {
		return err
	}
	if err := e.dir.Rename(e.temporary, e.name); err != nil {
		return unwritable(err)
	}
	e.kept = true
	if err := e.dir.Sync("."); err != nil {
		return unwritable(err)
	}
	return nil
}

// discard removes an image that has not got its name; one that has stays.
func (e *exportFile) discard() error {
	if e.kept {
		return nil
	}
	var closed error
	if !e.closed {
		e.closed = true
		closed = e.Close()
	}
	return errors.Join(closed, e.dir.Remove(e.temporary))
}

// isFull says whether a write failed for want of room.
func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// pointStream is one disk of a recovery point as the replica sends it.
type pointStream struct {
	header *vmreplicav1.RecoveryPointHeader
	recv   func() (*vmreplicav1.ReadRecoveryPointResponse, error)
	close  func()
	// copied is how far the disk is written, in bytes.
	copied atomic.Int64
}

// openPointStream begins to read a disk and takes the header, from which on the point stays.
func (v *invocation) openPointStream(ctx context.Context, vm, point, disk string) (*pointStream, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := v.pointService().ReadRecoveryPoint(ctx, &vmreplicav1.ReadRecoveryPointRequest{Vm: vm, Id: point, Disk: disk})
	if err != nil {
		cancel()
		return nil, err
	}
	s := &pointStream{recv: stream.Recv, close: cancel}
	if err := s.takeHeader(disk); err != nil {
		cancel()
		return nil, err
	}
	return s, nil
}

func (s *pointStream) point() string { return s.header.GetRecoveryPoint().GetId() }

func (s *pointStream) takeHeader(disk string) error {
	first, err := s.recv()
	if errors.Is(err, io.EOF) {
		return broken("it ended before its header")
	}
	if err != nil {
		return err
	}
	s.header = first.GetHeader()
	size := s.header.GetSizeBytes()
	switch {
	case s.header == nil:
		return broken("it does not begin with a header")
	case s.header.GetDisk() != disk:
		return broken("it is of disk %.80q and not of %s", s.header.GetDisk(), disk)
	case !replication.ID(s.point()).Valid():
		return broken("it is of no recovery point")
	case size < sectorBytes || size > maxDiskBytes || size%sectorBytes != 0:
		return broken("a disk cannot have %d bytes", size)
	}
	return nil
}

// copyTo writes the disk. Everything must come in order and without a gap to the very end.
func (s *pointStream) copyTo(file io.WriterAt) error {
	for size := s.header.GetSizeBytes(); ; {
		message, err := s.recv()
		at := s.copied.Load()
		switch {
		case errors.Is(err, io.EOF) && at == size:
			return nil
		case errors.Is(err, io.EOF):
			return broken("it ended after %d of %d bytes", at, size)
		case err != nil:
			return err
		}
		content := message.GetData().GetContent()
		offset, length := message.GetData().GetOffset(), int64(len(content))
		if zeros := message.GetZeros(); zeros != nil {
			offset, length = zeros.GetOffset(), zeros.GetLength()
		}
		if offset != at || length <= 0 || length > size-at || len(content) > maxChunkBytes {
			return broken("it says %d bytes at %d where %d of %d are written", length, offset, at, size)
		}
		if _, err := file.WriteAt(content, at); err != nil {
			return unwritable(err)
		}
		s.copied.Add(length)
	}
}

// broken is a stream that does not keep to its contract; what it brought is not kept.
func broken(format string, args ...any) *failure.Error {
	return failure.New(failure.Corrupt, failure.ReasonProtocol, "the replica's stream is broken: "+format, args...).
		Try("Repeat it; if it stays so, bring agent and command to one release.")
}
