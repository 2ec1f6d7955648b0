package merge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"

	"vmreplica/agent-replica/chain"
	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
)

// plainLayers keeps layers in a format of the fewest bytes, so that many crashes are tried in little time: a map
// of kinds, one byte for each 4 KiB, and behind it the disk's bytes in place. As in the product's own format,
// data is synced before the map that tells of it.
type plainLayers struct {
	chain.Storage
	dir durable.Dir
}

const (
	plainUnit   = 4 << 10
	plainHeader = 4 << 10
	plainMagic  = 0x706c61696e
)

func (p *plainLayers) CreateLayer(of chain.Layer, size int64, _ int) (disk.Layer, error) {
	file := of.File
	created, err := p.dir.Create(file)
	if err != nil {
		return nil, err
	}
	l := &plainLayer{file: created, size: size, kinds: make([]byte, (size+plainUnit-1)/plainUnit)}
	if err := errors.Join(created.Truncate(plainHeader+size), l.Flush(), p.dir.Sync(path.Dir(file))); err != nil {
		return nil, errors.Join(err, created.Close())
	}
	return l, nil
}

func (p *plainLayers) OpenLayer(of chain.Layer) (disk.Layer, error) {
	file := of.File
	opened, err := p.dir.Open(file, durable.ReadWrite)
	if err != nil {
		return nil, err
	}
	header := make([]byte, plainHeader)
	if _, err := opened.ReadAt(header, 0); err != nil && err != io.EOF {
		return nil, errors.Join(err, opened.Close())
	}
	if binary.LittleEndian.Uint64(header) != plainMagic {
		return nil, errors.Join(fmt.Errorf("%s is no layer", file), opened.Close())
	}
	size := int64(binary.LittleEndian.Uint64(header[8:]))
	return &plainLayer{file: opened, size: size, kinds: header[512 : 512+(size+plainUnit-1)/plainUnit]}, nil
}

type plainLayer struct {
	file  durable.File
	size  int64
	kinds []byte
	// parent is what Seal named, for the tests of re-parenting.
	parent string
}

func (l *plainLayer) Size() int64                   { return l.size }
func (l *plainLayer) LogicalSectorSize() int        { return 512 }
func (l *plainLayer) AllocatedBytes() (int64, bool) { return 0, false }
func (l *plainLayer) Close() error                  { return l.file.Close() }

func (l *plainLayer) ReadAt(p []byte, off int64) (int, error) {
	return l.file.ReadAt(p, plainHeader+off)
}

func (l *plainLayer) mark(off, n int64, kind disk.Kind) {
	for at := off / plainUnit; at*plainUnit < off+n; at++ {
		l.kinds[at] = byte(kind)
	}
}

func (l *plainLayer) WriteAt(p []byte, off int64) (int, error) {
	defer l.mark(off, int64(len(p)), disk.Data)
	return l.file.WriteAt(p, plainHeader+off)
}

func (l *plainLayer) Zero(off, n int64) error {
	l.mark(off, n, disk.Zero)
	return nil
}

func (l *plainLayer) Unmap(off, n int64) error {
	l.mark(off, n, disk.Unmapped)
	return nil
}

func (l *plainLayer) Flush() error {
	header := binary.LittleEndian.AppendUint64(nil, plainMagic)
	header = binary.LittleEndian.AppendUint64(header, uint64(l.size))
	header = append(header, make([]byte, 512-len(header))...)
	header = append(header, l.kinds...)
	if err := l.file.Sync(); err != nil {
		return err
	}
	if _, err := l.file.WriteAt(header, 0); err != nil {
		return err
	}
	return l.file.Sync()
}

func (l *plainLayer) Seal(parent disk.Parent) error {
	l.parent = parent.Name
	return l.Flush()
}

func (l *plainLayer) Extents(off, n int64) iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		for end := off + n; off < end; {
			next := min((off/plainUnit+1)*plainUnit, end)
			kind := disk.Kind(l.kinds[off/plainUnit])
			if kind == 0 {
				kind = disk.Absent
			}
			if !yield(disk.Extent{Offset: off, Length: next - off, Kind: kind}, nil) {
				return
			}
			off = next
		}
	}
}
