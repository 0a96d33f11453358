package vera

import (
	"os"

	"github.com/veratune/veratune/bindings"
)

// ladder lists the types that TypeAuto chooses among, beside each tensor's own.
var ladder = []bindings.Type{bindings.Q4_0, bindings.Q4_K, bindings.Q4_1, bindings.Q5_0, bindings.Q5_K, bindings.Q5_1, bindings.Q6_K, bindings.Q8_0, bindings.F16}

// option is a type that a tensor may get.
type option struct {
	kind  bindings.Type
	bytes int64
	lost  float64 // ‖Q(W + ΔW) − (W + ΔW)‖²
}

func (m *merger) raise(weights []*weight, budget int64) error {
	options := make([][]option, len(weights))
	scale := make([]float64, len(weights))
	for i, x := range weights {
		var err error
		if options[i], scale[i], err = m.survey(x); err != nil {
			return err
		}
	}
	for i, choice := range spend(options, scale, budget) {
		weights[i].become(options[i][choice].kind)
	}
	return nil
}

func (m *merger) survey(x *weight) ([]option, float64, error) {
	options := []option{{kind: x.Was, bytes: x.info.Size}}
	for _, t := range ladder {
		if t.CheckQuantize(int64(x.In)) != nil {
			continue
		}
		if bytes := t.RowBytes(int64(x.In)) * int64(x.Out); bytes > x.info.Size {
			options = append(options, option{kind: t, bytes: bytes})
		}
	}
	upd := 0.0
	ww := 0.0
	err := m.chunks(x, func(start int, merged []float32) error {
		for i := range options {
			_, lost, err := m.round(x, options[i].kind, start, merged)
			if err != nil {
				return err
			}
			options[i].lost += lost
		}
		u, err := m.update(x, start, merged)
		upd += u
		for _, v := range merged {
			ww += float64(v) * float64(v)
		}
		return err
	})
	s := 1.0
	switch os.Getenv("CRIT") {
	case "update":
		s = 1 / upd
	case "weight":
		s = 1 / ww
	}
	return options, s, err
}

// spend
func spend(options [][]option, scale []float64, budget int64) []int {
	choice := make([]int, len(options))
	for {
		best, at, to := 0.0, -1, 0
		for i, list := range options {
			now := list[choice[i]]
			for k, o := range list {
				extra := o.bytes - now.bytes
				if extra <= 0 || extra > budget {
					continue
				}
				if gain := scale[i] * (now.lost - o.lost) / float64(extra); gain > best {
					best, at, to = gain, i, k
				}
			}
		}
		if at < 0 {
			return choice
		}
		budget -= options[at][to].bytes - options[at][choice[at]].bytes
		choice[at] = to
	}
}
