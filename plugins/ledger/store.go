package main

import "slices"

// Containers that hold no pointers inside, grow without copying what they have, and have an order that depends on
// their contents only. A map has neither, and a slice that grows copies all of it within one command.

const pieceLength = 512

// list is a growing list; its entries stay where they are.
type list[T any] struct {
	pieces []*[pieceLength]T
	length int
}

func (l *list[T]) len() int { return l.length }

func (l *list[T]) at(i uint32) *T { return &l.pieces[i/pieceLength][i%pieceLength] }

// add appends and returns the entry's number.
func (l *list[T]) add(entry T) uint32 {
	if l.length == len(l.pieces)*pieceLength {
		l.pieces = append(l.pieces, new([pieceLength]T))
	}
	number := uint32(l.length)
	l.length++
	*l.at(number) = entry
	return number
}

const (
	blockBits  = 16
	blockBytes = 1 << blockBits
)

// text is where a text begins in texts.
type text uint32

// texts keeps short texts: a byte with the length, then the text, never across two blocks.
type texts struct {
	blocks [][]byte
}

func (t *texts) add(s string) text {
	last := len(t.blocks) - 1
	if last < 0 || len(t.blocks[last])+1+len(s) > blockBytes {
		t.blocks = append(t.blocks, make([]byte, 0, blockBytes))
		last++
	}
	block := t.blocks[last]
	where := text(last<<blockBits | len(block))
	t.blocks[last] = append(append(block, byte(len(s))), s...)
	return where
}

// get gives the bytes as they lie there: to be read only.
func (t *texts) get(where text) []byte {
	block := t.blocks[where>>blockBits]
	start := int(where%blockBytes) + 1
	return block[start : start+int(block[start-1])]
}

// sorted is an index: numbers, in the order of their keys, in blocks so that an insertion moves little. Unlike a hash
// table it has no keys that a client could choose to make it slow.
type sorted struct {
	key    func(number uint32) []byte
	blocks []*indexBlock // None is empty.
}

type indexBlock struct {
	length  int
	numbers [pieceLength]uint32
	heads   [pieceLength]uint64 // The head of each number's key.
}

// head is the first eight bytes of a key as a number of the same order. Most comparisons end here, without a look at
// the text, which costs ten times as much.
func head(key string) uint64 {
	if len(key) >= 8 {
		return uint64(key[0])<<56 | uint64(key[1])<<48 | uint64(key[2])<<40 | uint64(key[3])<<32 |
			uint64(key[4])<<24 | uint64(key[5])<<16 | uint64(key[6])<<8 | uint64(key[7])
	}
	var h uint64
	for i := range len(key) {
		h |= uint64(key[i]) << (56 - 8*i)
	}
	return h
}

// find looks a key up.
func (s *sorted) find(key string) (uint32, bool) {
	block, place, found := s.search(key)
	if !found {
		return 0, false
	}
	return s.blocks[block].numbers[place], true
}

// add inserts a number whose key is not there yet.
func (s *sorted) add(number uint32) {
	if len(s.blocks) == 0 {
		s.blocks = append(s.blocks, &indexBlock{})
	}
	key := string(s.key(number))
	i, place, _ := s.search(key)
	block := s.blocks[i]
	if block.length == pieceLength {
		// Keys that come in order fill blocks to the end; others leave them half full.
		keep := pieceLength / 2
		if i == len(s.blocks)-1 && place == pieceLength {
			keep = pieceLength
		}
		next := &indexBlock{length: pieceLength - keep}
		copy(next.numbers[:], block.numbers[keep:])
		copy(next.heads[:], block.heads[keep:])
		block.length = keep
		s.blocks = slices.Insert(s.blocks, i+1, next)
		if place > keep || keep == pieceLength {
			block, place = next, place-keep
		}
	}
	copy(block.numbers[place+1:block.length+1], block.numbers[place:block.length])
	copy(block.heads[place+1:block.length+1], block.heads[place:block.length])
	block.numbers[place] = number
	block.heads[place] = head(key)
	block.length++
}

// from gives the numbers with keys of at least this, in order, until the callback has enough.
func (s *sorted) from(key string, more func(number uint32) bool) {
	i, place, _ := s.search(key)
	for ; i < len(s.blocks); i, place = i+1, 0 {
		block := s.blocks[i]
		for _, number := range block.numbers[place:block.length] {
			if !more(number) {
				return
			}
		}
	}
}

// search finds where a key is or belongs: in the last block that begins with no greater one.
func (s *sorted) search(key string) (block, place int, found bool) {
	first := head(key)
	low, high := 0, len(s.blocks)
	for low < high {
		middle := (low + high) / 2
		b := s.blocks[middle]
		if h := b.heads[0]; h > first || h == first && string(s.key(b.numbers[0])) > key {
			high = middle
		} else {
			low = middle + 1
		}
	}
	if low == 0 {
		return 0, 0, false
	}
	block = low - 1
	b := s.blocks[block]
	low, high = 0, b.length
	for low < high {
		middle := (low + high) / 2
		if h := b.heads[middle]; h < first || h == first && string(s.key(b.numbers[middle])) < key {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return block, low, low < b.length && string(s.key(b.numbers[low])) == key
}
