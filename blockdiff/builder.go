package blockdiff

import "fmt"

// Plain is a list of extents with the content of its data extents, one after another, not yet coded.
type Plain struct {
	Extents []Extent
	Data    []byte

	pooled *buffer
}

// Release gives the content's buffer back; Data must not be used afterwards. A second call does nothing.
func (p *Plain) Release() {
	if p.pooled != nil {
		p.pooled.release()
	}
	p.pooled, p.Data = nil, nil
}

// Builder gathers extents for one frame after another. Neighbouring extents of one kind become one. It is for
// one goroutine.
type Builder struct {
	geometry Geometry
	limit    int
	plain    *Plain
}

// NewBuilder makes a Builder for frames of about limitBytes of content, at most MaxFramePlaintext less a block.
func NewBuilder(g Geometry, limitBytes int) *Builder {
	limit := min(max(limitBytes, 1), MaxFramePlaintext-BlockSize)
	return &Builder{geometry: g, limit: limit, plain: &Plain{}}
}

// Full says that the frame should be taken. While it does not, another block fits, whatever its extents.
func (b *Builder) Full() bool {
	return b.Bytes() >= b.limit || b.Extents() > MaxFrameExtents-SubBlocksPerBlock
}

// Bytes is the content gathered so far.
func (b *Builder) Bytes() int { return len(b.plain.Data) }

// Extents is the number of extents gathered so far.
func (b *Builder) Extents() int { return len(b.plain.Extents) }

// Empty says whether nothing was gathered.
func (b *Builder) Empty() bool { return b.Extents() == 0 }

// AddData adds content and copies it. An extent that is not as Extent says, or does not fit into the frame any
// more, is an ErrFrame and changes nothing.
func (b *Builder) AddData(off int64, data []byte) error {
	if len(data) > MaxFramePlaintext-b.Bytes() {
		return fmt.Errorf("%w: %d bytes do not fit beside %d", ErrFrame, len(data), b.Bytes())
	}
	if err := b.add(Extent{Offset: off, Length: int64(len(data)), Kind: ExtentData}); err != nil {
		return err
	}
	b.reserve(len(data))
	b.plain.Data = append(b.plain.Data, data...)
	return nil
}

// AddZero adds a range that reads as zeros and may keep its space. Errors are those of AddData.
func (b *Builder) AddZero(off, n int64) error {
	return b.add(Extent{Offset: off, Length: n, Kind: ExtentZero})
}

// AddUnmapped adds a range that reads as zeros and gives its space back. Errors are those of AddData.
func (b *Builder) AddUnmapped(off, n int64) error {
	return b.add(Extent{Offset: off, Length: n, Kind: ExtentUnmapped})
}

// Take is what was gathered; the Builder begins anew. The caller releases it.
func (b *Builder) Take() *Plain {
	taken := b.plain
	b.plain = &Plain{}
	return taken
}

func (b *Builder) add(extent Extent) error {
	if err := checkExtent(b.geometry, extent); err != nil {
		return err
	}
	if last := b.Extents() - 1; last >= 0 {
		before := &b.plain.Extents[last]
		if before.Kind == extent.Kind && before.End() == extent.Offset {
			before.Length += extent.Length
			return nil
		}
	}
	if b.Extents() == MaxFrameExtents {
		return fmt.Errorf("%w: more than %d extents", ErrFrame, MaxFrameExtents)
	}
	b.plain.Extents = append(b.plain.Extents, extent)
	return nil
}

// reserve makes room for n more bytes of content.
func (b *Builder) reserve(n int) {
	need := b.Bytes() + n
	if need <= cap(b.plain.Data) {
		return
	}
	larger := takeBuffer(max(need, b.limit+BlockSize))
	size := copy(larger.bytes, b.plain.Data)
	b.plain.Release()
	b.plain.Data, b.plain.pooled = larger.bytes[:size], larger
}
