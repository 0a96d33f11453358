package vera

import "github.com/veratune/veratune/bindings"

// ladder lists the types that TypeAuto chooses among, beside each tensor's own.
var ladder = []bindings.Type{bindings.Q4_0, bindings.Q4_K, bindings.Q4_1, bindings.Q5_0, bindings.Q5_K, bindings.Q5_1, bindings.Q6_K, bindings.Q8_0, bindings.F16}

// option is a type that a tensor may get.
type option struct {
	kind  bindings.Type
	bytes int64
	lost  float64 // ‖Q(W + ΔW) − (W + ΔW)‖² / ‖W + ΔW‖²
}

// raise gives tensors larger types until the budget is spent, those first whose relative error shrinks most for each byte more:
//
//	(‖Q(M) − M‖² − ‖Q'(M) − M‖²) / ‖M‖² / (bytes' − bytes)    with M = W + ΔW in float32
//
// ‖E‖²/‖M‖² is the error of a layer's result beside the result, for inputs whose numbers are independent and of one size; so layers of large and of small
// weights count alike. A file of quantised weights lies on the grid of its own type, where an update that is small beside a step is rounded away, and a type
// little finer adds noise of its own: what pays is often a few tensors in a much finer type, and the measured errors tell.
func (m *merger) raise(weights []*weight, budget int64) error {
	all := make([][]option, len(weights))
	for i, x := range weights {
		var err error
		if all[i], err = m.options(x); err != nil {
			return err
		}
	}
	for i, choice := range spend(all, budget) {
		weights[i].become(all[i][choice].kind)
	}
	return nil
}

// options measures what is lost in the tensor's own type, which comes first, and in each larger one that its rows fit.
func (m *merger) options(x *weight) ([]option, error) {
	list := []option{{kind: x.info.Type, bytes: x.info.Size}}
	for _, t := range ladder {
		if t.CheckQuantize(int64(x.In)) != nil {
			continue
		}
		if bytes := t.RowBytes(int64(x.In)) * int64(x.Out); bytes > x.info.Size {
			list = append(list, option{kind: t, bytes: bytes})
		}
	}
	size := 0.0
	err := m.chunks(x, func(start int, merged []float32) error {
		size += distance(merged, make([]float32, len(merged)))
		for i := range list {
			_, lost, err := m.round(x, list[i].kind, start, merged)
			if err != nil {
				return err
			}
			list[i].lost += lost
		}
		return nil
	})
	for i := range list {
		if list[i].lost > 0 { // else a matrix of zeros would give 0/0
			list[i].lost /= size
		}
	}
	return list, err
}

// spend chooses an option for each tensor, at first its own type. It goes on to the one, among all that fit into what is left of the budget, that makes
// the error smaller by most for each byte.
func spend(all [][]option, budget int64) []int {
	chosen := make([]int, len(all))
	for {
		best, tensor, to := 0.0, -1, 0
		for i, list := range all {
			now := list[chosen[i]]
			for k, o := range list {
				extra := o.bytes - now.bytes
				if extra <= 0 || extra > budget {
					continue
				}
				if gain := (now.lost - o.lost) / float64(extra); gain > best {
					best, tensor, to = gain, i, k
				}
			}
		}
		if tensor < 0 {
			return chosen
		}
		budget -= all[tensor][to].bytes - all[tensor][chosen[tensor]].bytes
		chosen[tensor] = to
	}
}
