package tokenizer

import "hash/maphash"

// names are texts with numbers from 0 on, in one block of memory, and finds the numbers.
type names struct {
	block   []byte
	offsets []uint32 // where each begins; the end of the last at the end
	slots   []int32  // a hash table of numbers, -1: free
	seed    maphash.Seed
}

// init makes room for so many texts of so many bytes in all.
func (n *names) init(size, bytes int) {
	slots := 16
	for slots < 2*size {
		slots *= 2
	}
	*n = names{block: make([]byte, 0, bytes), offsets: make([]uint32, 1, size+1), slots: make([]int32, slots),
		seed: maphash.MakeSeed()}
	for i := range n.slots {
		n.slots[i] = -1
	}
}

func (n *names) name(i int32) string { return string(n.block[n.offsets[i]:n.offsets[i+1]]) }

func (n *names) slot(text string) int {
	i := int(maphash.String(n.seed, text)) & (len(n.slots) - 1)
	for {
		at := n.slots[i]
		if at < 0 || string(n.block[n.offsets[at]:n.offsets[at+1]]) == text {
			return i
		}
		i = (i + 1) & (len(n.slots) - 1)
	}
}

// find gives the number of a text, -1 where there is none.
func (n *names) find(text string) int32 { return n.slots[n.slot(text)] }

// add gives a text the next number. Where it has one already, that is told, and it is the one that find gives.
func (n *names) add(text string) (first int32, same bool) {
	number := int32(len(n.offsets) - 1)
	i := n.slot(text)
	first = n.slots[i]
	if first < 0 {
		n.slots[i], first = number, number
	}
	n.block = append(n.block, text...)
	n.offsets = append(n.offsets, uint32(len(n.block)))
	if 2*(len(n.offsets)-1) > len(n.slots) {
		n.grow()
	}
	return first, first != number
}

// grow doubles the table.
func (n *names) grow() {
	old := n.slots
	n.slots = make([]int32, 2*len(old))
	for i := range n.slots {
		n.slots[i] = -1
	}
	for _, number := range old {
		if number >= 0 {
			n.slots[n.slot(n.name(number))] = number
		}
	}
}

// symbols are the characters that stand for bytes in byte-level BPE (GPT-2): printable bytes stand for themselves, the
// others, in order, for those from 256 on.
var symbols, bytesOf = func() (symbols [256]rune, bytes [512]int16) {
	for i := range bytes {
		bytes[i] = -1
	}
	next := rune(256)
	for b := range symbols {
		if b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae {
			symbols[b] = rune(b)
		} else {
			symbols[b] = next
			next++
		}
		bytes[symbols[b]] = int16(b)
	}
	return symbols, bytes
}()

// toBytes appends what the characters of a token stand for, and tells whether all stand for bytes.
func toBytes(to []byte, token string) ([]byte, bool) {
	for _, r := range token {
		if r >= 512 || bytesOf[r] < 0 {
			return to, false
		}
		to = append(to, byte(bytesOf[r]))
	}
	return to, true
}

// toSymbols is the way back.
func toSymbols(bytes string) string {
	list := make([]rune, len(bytes))
	for i := range list {
		list[i] = symbols[bytes[i]]
	}
	return string(list)
}
