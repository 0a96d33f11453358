package alpaca

// text returns the tokens of a row of text: BOS where the vocabulary wants it, and EOS.
func (e *Encoder) text(s string) ([]int32, error) {
	tokens, err := e.Verbatim(s)
	return append(tokens, e.tok.EOS()), err
}

// learnText makes a sample of tokens, all of which are learnt but the first and those that begin a text.
func (e *Encoder) learnText(tokens []int32, row int32) Sample {
	s := Sample{Tokens: tokens[:len(tokens)-1], Targets: make([]int32, len(tokens)-1), Row: int(row)}
	for i, next := range tokens[1:] {
		if s.Targets[i] = next; e.tok.AddBOS() && next == e.tok.BOS() && next != e.tok.EOS() {
			s.Targets[i] = -1
		}
	}
	return s
}

// packer lays the texts of a part end to end and cuts them into samples of the maximum length. What is left goes on in
// the next sample; the last is shorter. A sample's last target is the first token of the next, so that every token is
// learnt once.
type packer struct {
	d      *Dataset
	part   int
	tokens []int32 // that are in no sample yet
	first  int     // text that they begin in
	skip   int     // tokens of it before them
	length []int   // of the texts from first on
}

func (p *packer) add(r reading) {
	part := &p.d.parts[p.part]
	part.texts = append(part.texts, textRow{r.place, int32(r.number)})
	p.tokens, p.length = append(p.tokens, r.text...), append(p.length, len(r.text))
	for len(p.tokens) >= p.d.maxLength {
		p.cut(p.d.maxLength)
	}
}

// end makes a sample of what is left.
func (p *packer) end() {
	if len(p.tokens) > 1 {
		p.cut(len(p.tokens))
	}
}

// cut makes a sample of the next n tokens.
func (p *packer) cut(n int) {
	row := p.d.parts[p.part].texts[p.first].row
	s := p.d.encoder.learnText(p.tokens[:n], row)
	if s.labelled() > 0 {
		e := newEntry(s, p.part)
		e.row, e.text, e.sample = row, int32(p.first), int32(p.skip)
		p.d.entries = append(p.d.entries, e)
	}
	p.tokens = append([]int32(nil), p.tokens[n-1:]...)
	for p.skip += n - 1; len(p.length) > 0 && p.skip >= p.length[0]; p.first++ {
		p.skip -= p.length[0]
		p.length = p.length[1:]
	}
}

// packed reads the texts of a sample again.
func (d *Dataset) packed(e entry) (Sample, error) {
	var tokens []int32
	skip, most := int(e.sample), int(e.tokens)+1
	for _, t := range d.parts[e.part].texts[e.text:] {
		r, err := d.row(e.part, t.row, t.place)
		if err != nil {
			return Sample{}, err
		}
		more, err := d.encoder.text(r.text)
		if err != nil {
			return Sample{}, err
		}
		tokens = append(tokens, more[min(skip, len(more)):]...)
		if skip = 0; len(tokens) >= most {
			break
		}
	}
	if len(tokens) < 2 {
		return Sample{}, nil
	}
	return d.encoder.learnText(tokens[:min(most, len(tokens))], e.row), nil
}
