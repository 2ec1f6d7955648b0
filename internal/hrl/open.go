package hrl

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/replication"
)

// Disk is what the owner of a log knows of its disk.
type Disk struct {
	// Identity is the disk's own, minted once.
	Identity replication.ID
	// Size is the disk's size in bytes.
	Size int64
	// Baselines are those that the log may follow: the acknowledged lineage, an outstanding one, the Begin of a resync
	// under way. Empty: none is, and whatever the log follows is as good.
	Baselines []replication.ID
	// Opened is the open counter that was recorded last; 0 when none was. Closed says that the log was closed in order
	// since.
	Opened uint64
	Closed bool
	// Stamp is the image's now, before anybody writes to it.
	Stamp disk.Stamp
}

// Create makes the log of a disk that has none, in a directory of the agent's own. It is born lost: nothing is known
// of the writes before it, until Begin.
func Create(dir durable.Dir, name string, d Disk) (*Log, error) {
	return create(dir, name, d, lost(TrackingLost, "the log %s is new", name))
}

// Replace is Create in the place of a log whose file has failed.
func Replace(dir durable.Dir, name string, d Disk) (*Log, error) {
	if err := dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("put a new log in the place of a failed one: %w", err)
	}
	return Create(dir, name, d)
}

// Open opens the log of a disk, in a directory of the agent's own, and judges it. A log that is missing, damaged or
// another disk's is made anew and is lost with that as its evidence; every other is taken as it is. An error says that
// the file cannot be used at all: the disk is served with InMemory then.
func Open(dir durable.Dir, name string, d Disk) (*Log, error) {
	file, err := dir.Open(name, durable.ReadWrite)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return create(dir, name, d, lost(TrackingLost, "there is no log %s", name))
	case err != nil:
		return nil, fmt.Errorf("open the log: %w", err)
	}
	found, damage, err := read(file, d)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if damage.Cause != None {
		err := errors.Join(file.Close(), dir.Remove(name))
		if err != nil {
			return nil, fmt.Errorf("put a new log in the place of a damaged one (%s): %w", damage.Evidence, err)
		}
		return create(dir, name, d, damage)
	}
	l, err := resume(dir, name, file, found, d)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return l, nil
}

// InMemory is a log without a file, lost from the beginning: it serves a disk whose log cannot be had, so that the
// machine can run. It counts as an opening of a log that was opened before: should that be found again, it lacks what was
// written meanwhile.
func InMemory(d Disk, loss Loss) (*Log, error) {
	mapped, err := mapMemory(FileBytes(d.Size))
	if err != nil {
		return nil, err
	}
	h := header{DiskSize: d.Size, Opened: d.Opened, Lost: loss}
	if h.Opened > 0 {
		h.Opened++
	}
	return newLog(nil, "in memory", nil, mapped, h), nil
}

// read is the header of a log that can be taken as it is, or the damage that keeps it from that.
func read(file durable.File, d Disk) (header, Loss, error) {
	size, err := file.Size()
	if err != nil {
		return header{}, Loss{}, fmt.Errorf("measure the log: %w", err)
	}
	both := make([]byte, slots*pageSize)
	if _, err := file.ReadAt(both, 0); err != nil && !errors.Is(err, io.EOF) {
		return header{}, Loss{}, fmt.Errorf("read the log: %w", err)
	}
	h, err := newest(both[:pageSize], both[pageSize:])
	switch {
	case err != nil:
		return h, lost(TrackingLost, "the log's header is damaged: %v", err), nil
	case h.Identity != d.Identity:
		return h, lost(TrackingLost, "the log is of another disk (%s)", h.Identity), nil
	case h.DiskSize != d.Size:
		return h, lost(Reverted, "the disk had %d bytes when the log was made and has %d", h.DiskSize, d.Size), nil
	case size != FileBytes(d.Size):
		return h, lost(TrackingLost, "the log has %d bytes instead of %d", size, FileBytes(d.Size)), nil
	}
	return h, Loss{}, nil
}

// resume maps a log, judges it, takes everything as live and notes in the header that it is open. On an error the
// file is still the caller's.
func resume(dir durable.Dir, name string, file durable.File, h header, d Disk) (*Log, error) {
	boot, id, err := where(file)
	if err != nil {
		return nil, err
	}
	fd, _ := file.Fd()
	mapped, err := mapFile(fd, FileBytes(d.Size))
	if err != nil {
		return nil, err
	}
	l := newLog(dir, name, file, mapped, h)
	loss := h.Lost
	if fault := caught(func() { loss = l.judge(d, boot, id); l.take() }); fault != nil {
		return nil, errors.Join(fmt.Errorf("read the log: %w", fault), unmap(mapped))
	}
	if loss.Cause != None && h.Lost.Cause == None {
		l.header.Lost = loss
		l.lost.Store(&verdict{Loss: loss})
	}
	err = l.change(func(h *header) {
		h.Opened, h.Clean, h.BootID, h.File = max(h.Opened, d.Opened)+1, false, boot, id
		h.Stamp, h.Digest, h.Live = disk.Stamp{}, 0, areaA
	})
	if err != nil {
		return nil, errors.Join(err, unmap(mapped))
	}
	return l, nil
}

// judge says whether the log can be trusted, by what its last owner left in the header.
func (l *Log) judge(d Disk, boot string, file fileID) Loss {
	h := l.header
	switch {
	case h.Lost.Cause != None:
		return h.Lost
	case h.Opened < d.Opened:
		return lost(Reverted, "the log is an older copy: it was opened %d times, and the agent has opened it %d times",
			h.Opened, d.Opened)
	case !h.Clean && d.Closed && h.Opened == d.Opened:
		return lost(Reverted, "the log is an older copy: it is open, and the agent has closed it")
	case len(d.Baselines) > 0 && !slices.Contains(d.Baselines, h.Baseline):
		return lost(Reverted, "the log follows the baseline %q, which is not this relationship's", h.Baseline)
	case h.Clean && h.Digest != l.live.Load().digest():
		return lost(TrackingLost, "the log's marks are not those that it was closed with")
	case h.Clean && h.Stamp.Difference(d.Stamp) != "" && h.Stamp.Reverted(d.Stamp):
		return lost(Reverted, "the image may be an older one or another disk: %s", h.Stamp.Difference(d.Stamp))
	case h.Clean && h.Stamp.Difference(d.Stamp) != "":
		return lost(ImageModified, "the image changed while the log was closed: %s", h.Stamp.Difference(d.Stamp))
	case !h.Clean && h.BootID != boot:
		return lost(NotClosedCleanly, "the host was restarted while the log was open")
	case !h.Clean && h.File != file:
		return lost(Reverted, "another file was put in the place of the log that was open")
	}
	return Loss{}
}

// take counts what is there and makes everything live, in areaA. After a power loss, and where a bit was damaged, a
// summary says nothing of the marks that it should lead to, and a mark that is not counted takes others with it when the
// counted ones are gone: every page is looked at.
func (l *Log) take() {
	for _, b := range []*bitmap{l.live.Load(), l.epoch.Load(), l.sent} {
		b.reckon()
	}
	if other := l.live.Load(); other != l.first {
		l.live.Store(l.first)
		l.epoch.Store(other)
	}
	l.fold(l.epoch.Load(), 1)
	l.fold(l.sent, blocksPerSent)
}

// create makes the file: its space first, then the header that gives it meaning.
func create(dir durable.Dir, name string, d Disk, loss Loss) (*Log, error) {
	if err := disk.CheckSize(d.Size, 512); err != nil {
		return nil, err
	}
	file, err := dir.Create(name)
	if err != nil {
		return nil, fmt.Errorf("make the log: %w", err)
	}
	l, err := fill(dir, name, file, d, loss)
	if err != nil {
		return nil, errors.Join(err, file.Close(), dir.Remove(name))
	}
	return l, nil
}

// fill makes an empty file a log. On an error the file is still the caller's.
func fill(dir durable.Dir, name string, file durable.File, d Disk, loss Loss) (*Log, error) {
	boot, id, err := where(file)
	if err != nil {
		return nil, err
	}
	bytes := FileBytes(d.Size)
	err = file.Truncate(bytes)
	if err == nil {
		err = file.Allocate(0, bytes)
	}
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes for the log: %w", bytes, err)
	}
	h := header{
		Sequence: 1, Identity: d.Identity, DiskSize: d.Size, Opened: d.Opened + 1,
		BootID: boot, File: id, Lost: loss,
	}
	if err := h.check(); err != nil {
		return nil, err
	}
	if err := writeHeader(file, h); err != nil {
		return nil, err
	}
	if err := dir.Sync("."); err != nil {
		return nil, fmt.Errorf("make the log's name durable: %w", err)
	}
	fd, _ := file.Fd()
	mapped, err := mapFile(fd, bytes)
	if err != nil {
		return nil, err
	}
	return newLog(dir, name, file, mapped, h), nil
}

// where is the host's boot and which file this is.
func where(file durable.File) (string, fileID, error) {
	fd, ok := file.Fd()
	if !ok {
		return "", fileID{}, errors.New("a log needs a file of the host")
	}
	boot, err := bootID()
	if err != nil {
		return "", fileID{}, err
	}
	id, err := identify(fd)
	return boot, id, err
}
