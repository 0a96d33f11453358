package bindings

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
)

// llama.cpp's gguf-split cuts a file into parts named NAME-00001-of-00003.gguf. Each has a header of its own with these
// keys; the first has all other metadata.
const (
	keySplitNo      = "split.no"            // uint16, from 0
	keySplitCount   = "split.count"         // uint16; 0 and 1 are whole files
	keySplitTensors = "split.tensors.count" // int32, of all parts
)

var partName = regexp.MustCompile(`^(.+)-(\d{5})-of-(\d{5})\.gguf$`)

// place says which part of a file this is, from 0, and of how many.
func (p *part) place() (no, count uint16, err error) {
	value := p.value(keySplitCount)
	count, ok := value.(uint16)
	if value == nil || ok && count < 2 {
		return 0, 1, nil
	}
	no, okNo := p.value(keySplitNo).(uint16)
	if !ok || !okNo || no >= count {
		return 0, 0, fmt.Errorf("%s: %s is %v and %s %v: both are needed as uint16, the first below the second", p.path,
			keySplitNo, p.value(keySplitNo), keySplitCount, value)
	}
	return no, count, nil
}

// open opens the file, or all parts of the split file that it belongs to.
func (g *GGUF) open() error {
	named, err := openPart(g.path)
	if err != nil {
		return err
	}
	g.parts = []*part{named}
	no, count, err := named.place()
	if err != nil {
		return err
	}
	if count > 1 {
		if err := g.openOthers(named, no, count); err != nil {
			return err
		}
	}
	for i, p := range g.parts {
		for _, t := range p.tensors {
			if _, twice := g.index[t.Name]; twice {
				return fmt.Errorf("%s: tensor %s is in another part, too: the parts are not of one model; fetch all "+
					"of them anew", g.parts[i].path, t.Name)
			}
			g.index[t.Name] = len(g.tensors)
			g.tensors = append(g.tensors, t)
		}
	}
	if wanted, _ := g.Value(keySplitTensors).(int32); count > 1 && int(wanted) != len(g.tensors) {
		return fmt.Errorf("%s: the %d parts of the model have %d tensors, and %s is %v: they are not of one model, "+
			"or one was changed; fetch all of them anew",
			g.parts[0].path, count, len(g.tensors), keySplitTensors, g.Value(keySplitTensors))
	}
	return nil
}

// openOthers opens the parts beside the one that was named.
func (g *GGUF) openOthers(named *part, no, count uint16) error {
	name := partName.FindStringSubmatch(named.path)
	if name == nil || name[2] != fmt.Sprintf("%05d", no+1) || name[3] != fmt.Sprintf("%05d", count) {
		return fmt.Errorf("%s: is part %d of %d of a split model, and must have the name that it was made with, such "+
			"as NAME-%05d-of-%05d.gguf, with the other parts beside it",
			named.path, no+1, count, no+1, count)
	}
	g.parts = make([]*part, count)
	g.parts[no] = named
	for i := range count {
		if i == no {
			continue
		}
		path := fmt.Sprintf("%s-%05d-of-%05d.gguf", name[1], i+1, count)
		p, err := openPart(path)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: part %d of %d of the model is missing: put it beside %s", path, i+1, count,
				named.path)
		}
		if err != nil {
			return err
		}
		g.parts[i] = p
		if itsNo, itsCount, err := p.place(); err != nil {
			return err
		} else if itsNo != i || itsCount != count {
			return fmt.Errorf("%s: is part %d of %d by its metadata, not of the same model as %s; fetch all parts anew",
				path, itsNo+1, itsCount, named.path)
		}
	}
	return nil
}
