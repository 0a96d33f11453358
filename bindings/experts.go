package bindings

// #include "guard.h"
import "C"

// A mixture of experts (Shazeer et al., arXiv 1701.06538) has many matrices, w [in, out, experts] of any type that
// dequantises. Every row of activations chooses a few of them and is multiplied by those. The results lie side by side:
// choice j of row r is column r · Slots + j. Experts are frozen: there are gradients of their inputs and of their
// weights, but none of the matrices, and none of the choice.

// Route gives each row of logits [experts, rows], float32, the `used` experts with the largest logits, and a weight for
// each: the softmax over these logits. The result is float32 with a column for each row; only the operations below read
// it.
func (c *Context) Route(logits *Tensor, used int) *Tensor {
	if !c.areActivations("route", F32, logits) {
		return nil
	}
	if logits.Type() != F32 || used < 1 || int64(used) > logits.Ne(0) {
		return c.fail("route", "%d of %s", used, logits.describe())
	}
	if c.composed != nil {
		return c.composeRoute(logits, used)
	}
	to := result{Type: F32, width: int64(2 * used), rows: logits.Ne(1)}
	return c.node(C.GGML_VERA_ROUTE, parameters{}, to, logits)
}

// Slots is the number of columns that a row has in the results of its choices. The composed form computes all experts
// for all rows.
func (c *Context) Slots(routes *Tensor) int64 {
	if c.composed != nil {
		return routes.Ne(0)
	}
	return routes.Ne(0) / 2
}

// routesFit checks that x has a column for each choice of routes.
func (c *Context) routesFit(op string, t Type, routes *Tensor, x ...*Tensor) bool {
	if !c.areActivations(op, t, x...) || !c.areActivations(op, F32, routes) {
		return false
	}
	if routes.Type() != F32 || x[0].Ne(1) != c.Slots(routes)*routes.Ne(1) {
		c.fail(op, "%s for %s", x[0].describe(), routes.describe())
		return false
	}
	return true
}

// Weigh multiplies h [n, Slots · rows] by the weights of the choices, to type t.
func (c *Context) Weigh(h, routes *Tensor, t Type) *Tensor {
	if !c.routesFit("weigh", t, routes, h) {
		return nil
	}
	if c.composed != nil {
		return c.composeWeigh(h, routes, t)
	}
	return c.node(C.GGML_VERA_WEIGH, parameters{}, like(h, t), h, routes)
}

// RouteBack is the gradient of Route's logits [experts, rows], float32, for the gradient dy of Weigh's result for h:
// with dw = dy · h of each choice of a row, w (dw − Σ w dw).
func (c *Context) RouteBack(dy, h, routes *Tensor, experts int) *Tensor {
	if !c.routesFit("route_back", F32, routes, dy, h) {
		return nil
	}
	if dy.ne[0] != h.ne[0] || int64(experts) < c.Slots(routes) {
		return c.fail("route_back", "%s for %s and %d experts", dy.describe(), h.describe(), experts)
	}
	if c.composed != nil {
		return c.composeRouteBack(dy, h, routes)
	}
	to := result{Type: F32, width: int64(experts), rows: routes.Ne(1)}
	return c.node(C.GGML_VERA_ROUTE_BACK, parameters{}, to, dy, h, routes)
}

// Mixture is how rows meet the experts that they chose; Back transposes the matrices, for gradients. Acc and Into are
// as in Product.
type Mixture struct {
	Routes, Acc, Into *Tensor
	Back              bool
	Way               Way
}

// EachExpert is W x [out, Slots · rows] of type t, for every choice of a row x [in, rows]. Acc must be nil.
func (c *Context) EachExpert(w, x *Tensor, m Mixture, t Type) *Tensor {
	if !c.areMatrices("experts", x, m.Routes) {
		return nil
	}
	if m.Acc != nil || x.Ne(1) != m.Routes.Ne(1) {
		return c.fail("experts", "%s for %s", x.describe(), m.Routes.describe())
	}
	return c.experts(w, x, m, false, t)
}

// SumExperts is Acc plus the sum of W x over the choices of each row, [out, rows], float32, for x [in, Slots · rows].
func (c *Context) SumExperts(w, x *Tensor, m Mixture) *Tensor {
	if !c.routesFit("experts", F32, m.Routes, x) {
		return nil
	}
	return c.experts(w, x, m, true, F32)
}

func (c *Context) experts(w, x *Tensor, m Mixture, sum bool, t Type) *Tensor {
	if !c.hasOperands("experts", w) {
		return nil
	}
	in, out, rows := w.Ne(0), w.Ne(1), m.Routes.Ne(1)
	if m.Back {
		in, out = out, in
	}
	if !sum {
		rows *= c.Slots(m.Routes)
	}
	place := Product{Acc: m.Acc, Into: m.Into}
	if !isActivation(x.Type()) || !w.Type().Dequantizes() || !w.contiguous() || w.ne[3] != 1 ||
		w.Ne(2) < c.Slots(m.Routes) || x.Ne(0) != in || m.Way == Interleaved || m.Way == Rounded ||
		!place.fits(in, out, rows, t) {
		return c.fail("experts", "%s by %s to %v", w.describe(), x.describe(), t)
	}
	if c.composed != nil {
		return c.composeExperts(w, x, m, sum, t)
	}
	c.count(x, m.Way, in*out*m.Routes.Ne(1)*c.Slots(m.Routes))
	with := parameters{experts: C.struct_ggml_vera_experts{way: C.int32_t(m.Way), back: C.bool(m.Back),
		sum: C.bool(sum)}}
	return c.node(C.GGML_VERA_EXPERTS, with, result{t, out, rows, m.Into}, w, x, m.Routes, m.Acc)
}
