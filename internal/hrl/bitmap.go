package hrl

import (
	"math/bits"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// bitmap is one area of the mapping. Bits may be set by many goroutines at once and beside a clear of other bits;
// one goroutine at a time clears. Every method may fault where the file is gone from under the mapping.
type bitmap struct {
	words, summary []uint64
	bits           int64
	// count is how many bits are set.
	count atomic.Int64
}

// mask is the bits of word that [first, end) takes.
func mask(word, first, end int64) uint64 {
	from, to := max(first-word*64, 0), min(end-word*64, 64)
	return ^uint64(0) >> (64 - (to - from)) << from
}

// set sets [first, end). A page's place in the summary is set before its bits: who is killed in between leaves no bit
// that the summary does not lead to.
func (b *bitmap) set(first, end int64) {
	added := 0
	defer func() {
		if added > 0 { // also of a range that faults further on
			b.count.Add(int64(added))
		}
	}()
	for word := first / 64; word*64 < end; word++ {
		if word%wordsPerPage == 0 || word == first/64 {
			b.summarise(word / wordsPerPage)
		}
		want := mask(word, first, end)
		if atomic.LoadUint64(&b.words[word])&want != want {
			added += bits.OnesCount64(want &^ atomic.OrUint64(&b.words[word], want))
		}
	}
}

func (b *bitmap) summarise(page int64) {
	bit := uint64(1) << (page % 64)
	if atomic.LoadUint64(&b.summary[page/64])&bit == 0 {
		atomic.OrUint64(&b.summary[page/64], bit)
	}
}

// touch writes to every page that a set of [first, end) would write to, and changes nothing: a set that follows
// meets no page fault.
func (b *bitmap) touch(first, end int64) {
	for word := first / 64; word*64 < end; word = (word/wordsPerPage + 1) * wordsPerPage {
		want := mask(word, first, end)
		if atomic.LoadUint64(&b.words[word])&want != want || (end-1)/64 != word {
			atomic.OrUint64(&b.words[word], 0)
		}
		page := word / wordsPerPage
		if atomic.LoadUint64(&b.summary[page/64])&(1<<(page%64)) == 0 {
			atomic.OrUint64(&b.summary[page/64], 0)
		}
	}
}

// clear clears [first, end).
func (b *bitmap) clear(first, end int64) {
	removed := 0
	defer func() { b.count.Add(int64(-removed)) }()
	for word := first / 64; word*64 < end; word++ {
		want := mask(word, first, end)
		if atomic.LoadUint64(&b.words[word])&want != 0 {
			removed += bits.OnesCount64(atomic.AndUint64(&b.words[word], ^want) & want)
		}
	}
}

// next is the first run of set bits in [from, end), at most longest of them; first is end when there is none.
func (b *bitmap) next(from, end, longest int64) (first, count int64) {
	for first = from; first < end; {
		if first = b.skipPages(first, end); first >= end {
			break
		}
		if word := atomic.LoadUint64(&b.words[first/64]) >> (first % 64); word != 0 {
			first += int64(bits.TrailingZeros64(word))
			break
		}
		first = (first/64 + 1) * 64
	}
	if first >= end {
		return end, 0
	}
	stop := min(end, first+longest)
	last := first
	for last < stop {
		ones := int64(bits.TrailingZeros64(^(atomic.LoadUint64(&b.words[last/64]) >> (last % 64))))
		ones = min(ones, 64-last%64)
		if last += ones; last%64 != 0 || ones == 0 {
			break
		}
	}
	return first, min(last, stop) - first
}

// skipPages is the first bit at or after from whose page is in the summary; at least end when there is none.
func (b *bitmap) skipPages(from, end int64) int64 {
	page, last := from/bitsPerPage, (end-1)/bitsPerPage
	for at := page; at <= last; at = (at/64 + 1) * 64 {
		if word := atomic.LoadUint64(&b.summary[at/64]) >> (at % 64); word != 0 {
			at += int64(bits.TrailingZeros64(word))
			if at == page {
				return from
			}
			return at * bitsPerPage
		}
	}
	return end
}

// any says whether a bit of [first, end) is set.
func (b *bitmap) any(first, end int64) bool {
	for word := first / 64; word*64 < end; word++ {
		if atomic.LoadUint64(&b.words[word])&mask(word, first, end) != 0 {
			return true
		}
	}
	return false
}

// pages calls each with every page that the summary names.
func (b *bitmap) pages(each func(page int64, words []uint64)) {
	for page := b.skipPages(0, b.bits); page < b.bits; {
		at := page / bitsPerPage
		each(at, b.words[at*wordsPerPage:][:wordsPerPage])
		if page = (at + 1) * bitsPerPage; page < b.bits {
			page = b.skipPages(page, b.bits)
		}
	}
}

// reckon counts the bits that are set and makes the summary lead to all of them, and to nothing else. Nobody may set or
// clear one meanwhile.
func (b *bitmap) reckon() {
	b.cutOff()
	total := 0
	for i := range b.summary {
		var named uint64
		for page := int64(i) * 64; page < int64(i+1)*64 && page*wordsPerPage < int64(len(b.words)); page++ {
			ones := 0
			for _, word := range b.words[page*wordsPerPage:][:wordsPerPage] {
				ones += bits.OnesCount64(word)
			}
			if ones > 0 {
				named |= 1 << (page % 64)
			}
			total += ones
		}
		if b.summary[i] != named {
			b.summary[i] = named
		}
	}
	b.count.Store(int64(total))
}

// cutOff clears what is set after the last bit that means something.
func (b *bitmap) cutOff() {
	for word := b.bits / 64; word < int64(len(b.words)); word++ {
		if keep := ^(^uint64(0) << max(b.bits-word*64, 0)); b.words[word]&^keep != 0 {
			b.words[word] &= keep
		}
	}
}

// wipe clears everything, the bits before the summary that leads to them.
func (b *bitmap) wipe() {
	b.pages(func(page int64, _ []uint64) {
		b.clear(page*bitsPerPage, min((page+1)*bitsPerPage, int64(len(b.words))*64))
	})
	b.tidy()
}

// tidy empties the summary of a bitmap without a set bit. Nobody may set one meanwhile.
func (b *bitmap) tidy() {
	for i := range b.summary {
		if atomic.LoadUint64(&b.summary[i]) != 0 {
			atomic.StoreUint64(&b.summary[i], 0)
		}
	}
}

// digest is of the summary and of every page that it names.
func (b *bitmap) digest() uint64 {
	hash := xxhash.New()
	hash.Write(bytesOf(b.summary))
	b.pages(func(_ int64, words []uint64) { hash.Write(bytesOf(words)) })
	return hash.Sum64()
}
