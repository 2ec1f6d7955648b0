package qcow2

import "encoding/binary"

// countIn is the n-th refcount in raw, of 1<<order bits.
func countIn(raw []byte, order uint, n int64) uint64 {
	switch order {
	case 3:
		return uint64(raw[n])
	case 4:
		return uint64(binary.BigEndian.Uint16(raw[n*2:]))
	case 5:
		return uint64(binary.BigEndian.Uint32(raw[n*4:]))
	case 6:
		return binary.BigEndian.Uint64(raw[n*8:])
	}
	at, shift, mask := bitsOfCount(order, n)
	return uint64(raw[at] >> shift & mask)
}

func putCount(raw []byte, order uint, n int64, count uint64) {
	switch order {
	case 3:
		raw[n] = byte(count)
	case 4:
		binary.BigEndian.PutUint16(raw[n*2:], uint16(count))
	case 5:
		binary.BigEndian.PutUint32(raw[n*4:], uint32(count))
	case 6:
		binary.BigEndian.PutUint64(raw[n*8:], count)
	default:
		at, shift, mask := bitsOfCount(order, n)
		raw[at] = raw[at]&^(mask<<shift) | byte(count)<<shift
	}
}

// bitsOfCount is where a refcount of less than a byte lies: the first is in the lowest bits.
func bitsOfCount(order uint, n int64) (at int64, shift uint, mask byte) {
	bit := n << order
	return bit / 8, uint(bit % 8), byte(1<<(1<<order) - 1)
}

// block is the offset of the refcount block of a cluster, 0 when it has none. mu is held.
func (i *Image) block(cluster int64) int64 {
	index := cluster / i.header.perBlock
	if index >= int64(len(i.space.blocks)) {
		return 0
	}
	return int64(i.space.blocks[index])
}

// countsOf is the page with a cluster's refcount, and which of the page's refcounts it is; nil when the cluster has
// no refcount block. mu is held.
func (i *Image) countsOf(cluster int64) (*metaPage, int64, error) {
	block := i.block(cluster)
	if block == 0 {
		return nil, 0, nil
	}
	perPage := i.header.page * 8 >> i.header.order
	inBlock := cluster % i.header.perBlock
	p, err := i.pages.get(i.file, i.size, block+inBlock/perPage*i.header.page)
	return p, inBlock % perPage, err
}

func (i *Image) count(cluster int64) (uint64, error) {
	p, n, err := i.countsOf(cluster)
	if err != nil || p == nil {
		return 0, err
	}
	return countIn(p.raw, i.header.order, n), nil
}

// setCount changes the refcount of a cluster that has a refcount block. mu and changing are held.
func (i *Image) setCount(cluster int64, count uint64) error {
	p, n, err := i.countsOf(cluster)
	if err != nil {
		return err
	}
	putCount(p.raw, i.header.order, n, count)
	i.pages.change(p, countsPage)
	return nil
}

// firstFree is the first cluster from from on with the refcount 0. mu is held.
func (i *Image) firstFree(from int64) (int64, error) {
	perPage := i.header.page * 8 >> i.header.order
	for c := from; ; {
		p, n, err := i.countsOf(c)
		if err != nil || p == nil {
			return c, err
		}
		for ; n < perPage; n++ {
			if countIn(p.raw, i.header.order, n) == 0 {
				return c, nil
			}
			c++
		}
	}
}
