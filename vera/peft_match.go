package vera

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dlclark/regexp2"
)

// matcher tells which module paths PEFT adapts: those that target_modules select and exclude_modules don't.
func (p *peftConfig) matcher() (func(path string) (bool, error), error) {
	included, err := p.included()
	if err != nil {
		return nil, err
	}
	excluded, err := p.Exclude.matcher("exclude_modules")
	if err != nil {
		return nil, err
	}
	return func(path string) (bool, error) {
		if out, err := excluded(path); out || err != nil {
			return false, err
		}
		return included(path)
	}, nil
}

// matcher tells whether a module is named: a pattern must match a whole path; a name must be the path or its end after
// a dot.
func (t targetModules) matcher(option string) (func(path string) (bool, error), error) {
	if t.pattern == "" {
		return func(path string) (bool, error) {
			return slices.ContainsFunc(t.names, func(name string) bool {
				return path == name || strings.HasSuffix(path, "."+name)
			}), nil
		}, nil
	}
	pattern, err := compile(option, `\A(?:`+t.pattern+`)\z`)
	if err != nil {
		return nil, err
	}
	return func(path string) (bool, error) {
		selected, err := pattern.MatchString(path)
		if err != nil {
			return false, fmt.Errorf("%s: %w", option, err)
		}
		return selected, nil
	}, nil
}

// allLinear tells whether every linear layer but the head is adapted.
func (p *peftConfig) allLinear() bool { return strings.EqualFold(p.Targets.pattern, "all-linear") }

// included tells which module paths target_modules select. The layer options hold only for names that are not a whole
// path.
func (p *peftConfig) included() (func(path string) (bool, error), error) {
	if p.allLinear() {
		return func(string) (bool, error) { return true, nil }, nil
	}
	named, err := p.Targets.matcher("target_modules")
	if err != nil || p.Targets.pattern != "" {
		return named, err
	}
	if len(p.Targets.names) == 0 {
		return nil, errors.New("target_modules is empty; must be a list of module names, a regular expression, or " +
			"\"all-linear\"")
	}
	block, err := p.blockPatterns()
	if err != nil {
		return nil, err
	}
	return func(path string) (bool, error) {
		selected, _ := named(path)
		if !selected || len(p.Layers) == 0 || slices.Contains(p.Targets.names, path) {
			return selected, nil
		}
		for _, pattern := range block {
			m, err := pattern.FindStringMatch(path)
			if err != nil {
				return false, fmt.Errorf("layers_pattern: %w", err)
			}
			if m != nil {
				n, err := strconv.Atoi(m.GroupByName("idx").String())
				return slices.Contains(p.Layers, n), err
			}
		}
		return false, nil
	}, nil
}

// blockPatterns find the number of the block in a module's path; the first that matches decides.
func (p *peftConfig) blockPatterns() ([]*regexp2.Regexp, error) {
	const number = `\.(?P<idx>\d+)\.`
	names := []string(p.LayersPattern)
	if len(names) == 0 || len(names) == 1 && names[0] == "" {
		any, err := compile("layers_pattern", `\A.*?\.[^.]*`+number)
		return []*regexp2.Regexp{any}, err
	}
	var patterns []*regexp2.Regexp
	for _, name := range names {
		pattern, err := compile("layers_pattern", `\A(?:|.*?\.)`+name+number)
		if err != nil {
			return nil, err
		}
		patterns = append(patterns, pattern)
	}
	return patterns, nil
}

// compile makes a backtracking matcher, for patterns in Python's syntax with look-around, that gives up on a pattern
// that would never end.
func compile(option, pattern string) (*regexp2.Regexp, error) {
	re, err := regexp2.Compile(pattern, regexp2.RE2)
	if err != nil {
		// which is not as it stands in the file
		reason, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), "error parsing regexp: "), " in `")
		return nil, fmt.Errorf("%s: not a regular expression: %s", option, reason)
	}
	re.MatchTimeout = time.Second
	return re, nil
}

// pattern is a JSON object of values for modules: each key is a regular expression that must match the end of a
// module's path, from its beginning or after a dot. The first in the file's order that matches decides.
type pattern[T any] []struct {
	key   string
	value T
}

// UnmarshalJSON reads an object, or null, in its order.
func (p *pattern[T]) UnmarshalJSON(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if opening, err := d.Token(); opening == nil || err != nil {
		return err
	} else if opening != json.Delim('{') {
		return errors.New("must be an object")
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		var value T
		if err := d.Decode(&value); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		*p = append(*p, struct {
			key   string
			value T
		}{key.(string), value})
	}
	return nil
}

// lookup gives the value of a module's path, or the usual one.
func (p pattern[T]) lookup(option string, usual T) (func(path string) (T, error), error) {
	keys := make([]*regexp2.Regexp, len(p))
	for i, entry := range p {
		var err error
		if keys[i], err = compile(option, `\A(?:.*\.)?(?:`+entry.key+`)\z`); err != nil {
			return nil, err
		}
	}
	return func(path string) (T, error) {
		for i, key := range keys {
			if found, err := key.MatchString(path); err != nil {
				return usual, fmt.Errorf("%s: %w", option, err)
			} else if found {
				return p[i].value, nil
			}
		}
		return usual, nil
	}, nil
}
