package vera

import "github.com/veratune/veratune/bindings"

// ladder lists the types that TypeAuto chooses among, beside each tensor's own.
var ladder = []bindings.Type{bindings.Q4_0, bindings.Q4_K, bindings.Q4_1, bindings.Q5_0, bindings.Q5_K, bindings.Q5_1,
	bindings.Q6_K, bindings.Q8_0, bindings.F16}

// option is a type that a tensor may get, and its cost.
type option struct {
	kind  bindings.Type
	bytes int64
	cost  float64
}

// along is how much more an error does to a model along an update than in a random direction of the same size: training
// moves weights where the loss depends on them. On SmolLM2-135M, finetuned for 8 steps, losing the update and rounding
// to q8_0 or q5_1 give divergences from which it is about 100.
const along = 100

// cost is what rounding M = W + ΔW off by E is taken to do to a model:
//
//	(along · ‖E∥‖² + ‖E⊥‖²) / ‖M‖²
//
// E∥ is the part of E along ΔW, the update that is lost: ‖E∥‖ = |1 − kept| ‖ΔW‖. E⊥ is noise. The two are far apart:
// the weights of a quantised file lie on the grid of its type, where an update that is small beside a step is rounded
// away and E⊥ is small, while every other type, even one a little finer, keeps the update under noise of its own.
func (r *rounding) cost() float64 {
	if r.err == 0 {
		return 0
	}
	lost := (1 - r.kept()) * (1 - r.kept()) * r.update
	return (along*lost + r.err - lost) / r.size
}

// raise gives tensors larger types until the budget is spent, those first whose cost shrinks most for each byte more.
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

// options measures the cost of the tensor's own type, which comes first, and of each larger one that its rows fit.
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
	sums := make([]rounding, len(list))
	err := m.chunks(x, func(start int, merged []float32) error {
		for i := range list {
			_, part, err := m.round(x, list[i].kind, start, merged)
			if err != nil {
				return err
			}
			sums[i].add(part)
		}
		return nil
	})
	for i := range list {
		list[i].cost = sums[i].cost()
	}
	return list, err
}

// spend chooses an option for each tensor, at first its own type. It goes on to the one, among all that fit into what
// is left of the budget, that makes the cost smaller by most for each byte.
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
				if gain := (now.cost - o.cost) / float64(extra); gain > best {
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
