// A gated delta net: each value head has a memory S [dim k][dim v]. With q and k normalised and q scaled
// (bindings/delta.go has the formulas), token t computes
//
//   w = v − (e^g S)ᵀ k,  S ← e^g S + β k wᵀ,  o = Sᵀ q
//
// SPAN tokens are computed together. G are the sums of g from the first token of the span, D_ij = e^(G_i − G_j) for j ≤
// i, and S is the memory before the span. The w of all tokens are the rows of W:
//
//   N_ij = −D_ij β_j k_i·k_j for j < i,  P_ij = D_ij β_j q_i·k_j,  L_j = e^(G_last − G_j) β_j
//   (1 − N) W = V − e^G ⊙ K S,  O = e^G ⊙ Q S + P W,  S' = e^(G_last) S + Kᵀ (L ⊙ W)
//
// Backward first goes forward and keeps S and W of each span. Then it goes from the last span to the first, with E =
// ∂S':
//
//   ∂W = Pᵀ ∂O + L ⊙ K E,  (1 − N)ᵀ ∂V = ∂W,  X = e^G ⊙ ∂O,  Y = −e^G ⊙ ∂V
//   J_ij = D_ij β_j (∂O Wᵀ)_ij,  M_ij = −D_ij β_j (∂V Wᵀ)_ij for j < i
//   ∂Q = J K + X Sᵀ,  ∂K = Jᵀ Q + (M + Mᵀ) K + Y Sᵀ + (L ⊙ W) Eᵀ,  ∂S = e^(G_last) E + Qᵀ X + Kᵀ Y
//
// Exponents are never above 0. ∂g_t sums what flows across token t, and so is small where g_t lets little through: the
// pairs i ≥ t > j of J ⊙ Q Kᵀ + M ⊙ K Kᵀ, what i ≥ t and S' read of the memory before the span, and what j < t write by
// L.
//
// A thread takes a key head and the value heads that share it through a text. For a token and value head, forward takes
// 6 dim k · dim v + 2 SPAN (dim k + dim v) operations, and backward about three times as many. Memory and operands of a
// span stay in the second-level cache.
#pragma once

#include "dense.hpp"
#include "exp.hpp"
#include "rows.hpp"
#include "transpose.hpp"

namespace vera {
namespace KERNELS {

// An odd number of vectors from row to row, so that rows do not fall into the same sets of the cache.
enum { SPAN = 64, WIDE = 2 * SPAN + LANES };

// What all kernels of the delta net take.
struct delta {
    const ggml_tensor *qkv, *a, *b;
    const float *      decay, *bias;
    int64_t            keys, values, dk, dv, group;  // group: value heads to a key head
    int64_t            pk, pv, lk, lv;               // dk and dv padded to whole vectors; from row to row of these
    float              eps, scale;

    delta(const ggml_vera_delta_net & with, ggml_tensor * const * src)
        : qkv(src[0]), a(src[1]), b(src[2]), decay((const float *) src[3]->data), bias((const float *) src[4]->data),
          keys(with.keys), values(with.values), dk(with.dim_k), dv(with.dim_v), group(values / keys), pk(whole(dk)),
          pv(whole(dv)), lk(pk | LANES), lv(pv | LANES), eps(with.eps), scale(1 / std::sqrt((float) dk)) {}

    int64_t value_column(int64_t head) const { return 2 * keys * dk + head * dv; }

    // to = n elements of row i of t from a column on, padded with zeros.
    static void fetch(const ggml_tensor * t, int64_t i, int64_t column, int64_t n, int64_t padded, float * to) {
        const float * from = floats(t, row(t, i) + column * (t->type == BF16 ? 2 : 4), to, n);
        if (from != to) {
            memcpy(to, from, n * sizeof(float));
        }
        memset(to + n, 0, (padded - n) * sizeof(float));
    }

    // The same divided by √(Σ x² + eps), times factor. Returns 1 / √(Σ x² + eps).
    float fetch_normed(int64_t i, int64_t column, float factor, float * to) const {
        fetch(qkv, i, column, dk, pk, to);
        const double squares = sum_of(pk, [&](int64_t j, auto) { return load(to + j) * load(to + j); });
        const float  s       = (float) (1 / std::sqrt(squares + eps));
        for (int64_t j = 0; j < pk; j += LANES) {
            store(to + j, load(to + j) * splat(s * factor));
        }
        return s;
    }

    static double element(const ggml_tensor * t, int64_t i, int64_t head) {
        float x;
        fetch(t, i, head, 1, 1, &x);
        return x;
    }

    double biased(int64_t i, int64_t head) const { return element(a, i, head) + bias[head]; }

    static double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

    double beta(int64_t i, int64_t head) const { return sigmoid(element(b, i, head)); }

    double g(int64_t i, int64_t head) const {
        const double x = biased(i, head);
        return decay[head] * ((x > 0 ? x : 0) + std::log1p(std::exp(-std::fabs(x))));
    }
};

// exp_of, with 0 for results below e⁻⁸⁷: they are 0 beside anything else, and subnormal numbers are slow.
static inline vf small_exp(vf x) {
    const vf y = exp_of(x);
    return x < splat(-87) ? vf{} : y;
}

// The gates of one head in a span. After the last token β is 0 and G stays the same.
struct gates {
    alignas(64) float beta[SPAN], high[SPAN], low[SPAN];  // G is high + low
    alignas(64) float grown[SPAN], left[SPAN];            // e^G, e^(G_last − G)
    float all;                                            // e^(G_last)

    gates(const delta & d, int64_t first, int64_t n, int64_t m, int64_t head) {
        double sum = 0;
        for (int64_t i = 0; i < m; i++) {
            beta[i] = 0;
            if (i < n) {
                sum += d.g(first + i, head);
                beta[i] = (float) d.beta(first + i, head);
            }
            high[i] = (float) sum;
            low[i]  = std::isfinite(sum) ? (float) (sum - high[i]) : 0;
        }
        for (int64_t c = 0; c < m; c += LANES) {
            store(grown + c, small_exp(load(high + c) + load(low + c)));
            store(left + c, small_exp(splat(high[m - 1]) - load(high + c) + (splat(low[m - 1]) - load(low + c))));
        }
        all = grown[m - 1];
    }
};

// Solves (1 − N) x = w for x, which replaces w, block by block.
static void solve(int64_t m, int64_t width, const float * n, float * w, int64_t stride) {
    for (int64_t from = 0, end; from < m; from = end) {
        end = from + ROWS < m ? from + ROWS : m;
        if (from) {
            dense(end - from, width, from, n + from * SPAN, SPAN, w, stride, w + from * stride, stride, true);
        }
        for (int64_t i = from + 1; i < end; i++) {
            dense(1, width, i - from, n + i * SPAN + from, SPAN, w + from * stride, stride, w + i * stride, stride,
                  true);
        }
    }
}

// The same for (1 − N)ᵀ; n is Nᵀ.
static void solve_back(int64_t m, int64_t width, const float * n, float * w, int64_t stride) {
    for (int64_t end = m, from; end > 0; end = from) {
        from = end > ROWS ? end - ROWS : 0;
        if (end < m) {
            dense(end - from, width, m - end, n + from * SPAN + end, SPAN, w + end * stride, stride, w + from * stride,
                  stride, true);
        }
        for (int64_t i = end - 2; i >= from; i--) {
            dense(1, width, end - 1 - i, n + i * SPAN + i + 1, SPAN, w + (i + 1) * stride, stride, w + i * stride,
                  stride, true);
        }
    }
}

static inline double dot(const float * x, const float * y, int64_t n) {
    return sum_of(n, [&](int64_t i, auto some) { return load(x + i, some) * load(y + i, some); });
}

// to = factor · x, + to if `add`, for n elements in whole vectors.
static inline void scale_row(const float * x, float factor, float * to, int64_t n, bool add) {
    for (int64_t i = 0; i < n; i += LANES) {
        const vf v = splat(factor) * load(x + i);
        store(to + i, add ? load(to + i) + v : v);
    }
}

// A span of a text, and what is computed for it.
struct span {
    const delta & d;
    int64_t       first, n, m;         // m: n rounded up to whole vectors
    float *       qk, *transposed;     // normed [q; k] [2m][dim k], and [dim k][WIDE]
    float *       pairs;               // [q kᵀ; k kᵀ] [2m][SPAN]
    float *       decays, *p, *minus;  // D, P, N [m][SPAN]
    float *       read;                // [Q S; K S] [2m][dim v]
    float *       inverse;             // 1 / √(Σ x² + eps) of q and k, [2 SPAN]

    span(const delta & of, carver & c) : d(of) {
        qk         = c.take<float>(2 * SPAN * d.lk);
        transposed = c.take<float>(WIDE * d.pk);
        pairs      = c.take<float>(2 * SPAN * SPAN);
        decays     = c.take<float>(SPAN * SPAN);
        p          = c.take<float>(SPAN * SPAN);
        minus      = c.take<float>(SPAN * SPAN);
        read       = c.take<float>(2 * SPAN * d.lv);
        inverse    = c.take<float>(2 * SPAN);
    }

    const float * k() const { return qk + m * d.lk; }
    const float * keys_transposed() const { return transposed + m; }

    void begin(int64_t start, int64_t count, int64_t head) {
        first = start, n = count, m = whole(count);
        for (int64_t part = 0; part < 2; part++) {
            float * to = qk + part * m * d.lk;
            for (int64_t i = 0; i < n; i++) {
                inverse[part * SPAN + i] =
                    d.fetch_normed(first + i, (part * d.keys + head) * d.dk, part ? 1 : d.scale, to + i * d.lk);
            }
            memset(to + n * d.lk, 0, (m - n) * d.lk * sizeof(float));
        }
        transpose(2 * m, d.pk, qk, d.lk, transposed, WIDE);
        dense(2 * m, m, d.dk, qk, d.lk, keys_transposed(), WIDE, pairs, SPAN, false);
    }

    // The rows of a value head, padded with zeros.
    void fetch_rows(const ggml_tensor * t, int64_t column, float * to) const {
        for (int64_t i = 0; i < n; i++) {
            delta::fetch(t, first + i, column, d.dv, d.pv, to + i * d.lv);
        }
        memset(to + n * d.lv, 0, (m - n) * d.lv * sizeof(float));
    }

    // D, P and N.
    void weigh(const gates & g) const {
        for (int64_t i = 0; i < m; i++) {
            float *to = decays + i * SPAN, *pi = p + i * SPAN, *ni = minus + i * SPAN;
            for (int64_t c = 0; c < m; c += LANES) {
                store(to + c,
                      c > i ? vf{}
                            : small_exp(splat(g.high[i]) - load(g.high + c) + (splat(g.low[i]) - load(g.low + c))));
            }
            for (int64_t c = i + 1; c % LANES; c++) {
                to[c] = 0;
            }
            for (int64_t c = 0; c < m; c += LANES) {
                const vf weight = load(to + c) * load(g.beta + c);
                store(pi + c, weight * load(pairs + i * SPAN + c));
                store(ni + c, -weight * load(pairs + (m + i) * SPAN + c));
            }
            ni[i] = 0;
        }
    }

    // W of a value head.
    void write(const gates & g, int64_t head, const float * s, float * w, bool result) const {
        fetch_rows(d.qkv, d.value_column(head), w);
        const int64_t skip = result ? 0 : m;  // only the result needs Q S
        dense(2 * m - skip, d.pv, d.dk, qk + skip * d.lk, d.lk, s, d.lv, read + skip * d.lv, d.lv, false);
        for (int64_t i = 0; i < m; i++) {
            scale_row(read + (m + i) * d.lv, -g.grown[i], w + i * d.lv, d.pv, true);
        }
        solve(m, d.pv, minus, w, d.lv);
    }

    // O, which replaces Q S.
    void result(const gates & g, int64_t head, const float * w, ggml_tensor * dst) const {
        for (int64_t i = 0; i < m; i++) {
            scale_row(read + i * d.lv, g.grown[i], read + i * d.lv, d.pv, false);
        }
        for (int64_t i = 0; i < m; i += ROWS) {
            const int64_t end = i + ROWS < m ? i + ROWS : m;
            dense(end - i, d.pv, end, p + i * SPAN, SPAN, w, d.lv, read + i * d.lv, d.lv, true);
        }
        for (int64_t i = 0; i < n; i++) {
            put(dst, row(dst, first + i) + head * d.dv * (dst->type == BF16 ? 2 : 4), read + i * d.lv, d.dv);
        }
    }

    // S', with buf [m][dim v].
    void step(const gates & g, const float * w, float * s, float * buf) const {
        for (int64_t i = 0; i < m; i++) {
            scale_row(w + i * d.lv, g.left[i] * g.beta[i], buf + i * d.lv, d.pv, false);
        }
        scale_row(s, g.all, s, d.dk * d.lv, false);
        dense(d.dk, d.pv, m, keys_transposed(), WIDE, buf, d.lv, s, d.lv, true);
    }
};

// The texts of a pack: each is a segment without a parent and the segments after it that have one. Every segment with
// children keeps its memory.
struct delta_texts {
    const segment * segments;
    int64_t         count, texts, kept, spans;  // kept, spans: the most kept memories and spans of one text
    // for each segment the place of its kept memory, or −1; for each text its first segment, and the end
    int32_t *places, *begins;

    delta_texts(const thread & t, const ggml_tensor * tree)
        : segments((const segment *) tree->data), count(tree->ne[1]), texts(0), kept(0), spans(0) {
        if (t.ith == 0) {
            t.parts((2 * count + 1) * sizeof(int32_t));
            find((int32_t *) t.parts(0));
        }
        t.barrier();
        places    = (int32_t *) t.parts(0);
        begins    = places + count;
        int32_t k = 0;
        int64_t s = 0;
        for (int64_t i = 0; i < count; i++) {
            if (segments[i].parent < 0) {
                texts++;
                k = 0;
                s = 0;
            }
            k += places[i] >= 0;
            s += (segments[i].length + SPAN - 1) / SPAN;
            kept  = k > kept ? k : kept;
            spans = s > spans ? s : spans;
        }
    }

    void find(int32_t * place) const {
        int32_t *begin = place + count, k = 0;
        for (int64_t i = 0; i < count; i++) {
            place[i] = -1;
            if (segments[i].parent >= 0) {
                place[segments[i].parent] = 0;
            }
        }
        for (int64_t i = 0; i < count; i++) {
            if (segments[i].parent < 0) {
                *begin++ = (int32_t) i;
                k        = 0;
            }
            if (place[i] == 0) {
                place[i] = k++;
            }
        }
        *begin = (int32_t) count;
    }
};

// The memory that a segment begins with.
static void enter(const delta_texts & t, const segment & s, int64_t size, const float * kept, float * to) {
    if (s.parent < 0) {
        memset(to, 0, size * sizeof(float));
    } else {
        memcpy(to, kept + t.places[s.parent] * size, size * sizeof(float));
    }
}

// Sources: qkv, a, b, decay, bias, segments.
static void delta_net(const thread & t, const ggml_vera_delta_net & with, ggml_tensor * dst) {
    const delta       d(with, t.src);
    const int64_t     one = d.pk * d.lv, size = d.group * one;
    const delta_texts texts(t, t.src[5]);
    float *           s, *kept, *w, *buf;
    const auto        place = [&](carver & c) {
        s    = c.take<float>(size);
        kept = c.take<float>(texts.kept * size);
        w    = c.take<float>(SPAN * d.lv);
        buf  = c.take<float>(SPAN * d.lv);
        return span(d, c);
    };
    carver counted = { 0 };
    place(counted);
    carver c  = { (uintptr_t) t.scratch(counted.next) };
    span   of = place(c);
    for (int64_t item; (item = t.take()) < texts.texts * d.keys;) {
        const int64_t text = item / d.keys, head = item % d.keys;
        for (int64_t i = texts.begins[text]; i < texts.begins[text + 1]; i++) {
            const segment & run = texts.segments[i];
            enter(texts, run, size, kept, s);
            for (int64_t j = 0; j < run.length; j += SPAN) {
                of.begin(run.first + j, run.length - j < SPAN ? run.length - j : SPAN, head);
                for (int64_t r = 0; r < d.group; r++) {
                    const int64_t value = head + r * d.keys;
                    const gates   g(d, of.first, of.n, of.m, value);
                    of.weigh(g);
                    of.write(g, value, s + r * one, w, true);
                    of.result(g, value, w, dst);
                    of.step(g, w, s + r * one, buf);
                }
            }
            if (texts.places[i] >= 0) {
                memcpy(kept + texts.places[i] * size, s, size * sizeof(float));
            }
        }
    }
}

// What backward needs beside the span.
struct delta_back {
    const delta & d;
    float *       states, *ws;  // S and W of each span and value head
    float *       e, *st;       // ∂S' of each value head; S or E, transposed [dim v][dim k]
    // [∂O; ∂V], [X; Y] [2m][dim v]; K E, L ⊙ W [m][dim v]; W transposed [dim v][SPAN]
    float *g, *xy, *ke, *lw, *wt;
    // [∂O Wᵀ; ∂V Wᵀ], then [J; M] [2m][SPAN]; what ∂g and ∂β sum [m][SPAN]; [Jᵀ, M + Mᵀ] [m][WIDE]
    float *products, *sums, *beside;
    float *dqk, *part;  // [∂Q; ∂K], and X Sᵀ and Y Sᵀ of one value head [2m][dim k]

    // the memory; for each segment with children its last memory, and the gradient of that
    float *s, *kept, *grads;

    delta_back(const delta & of, int64_t spans, int64_t count, carver & c) : d(of) {
        s        = c.take<float>(d.group * d.pk * d.lv);
        kept     = c.take<float>(count * d.group * d.pk * d.lv);
        grads    = c.take<float>(count * d.group * d.pk * d.lv);
        states   = c.take<float>(spans * d.group * d.pk * d.lv);
        ws       = c.take<float>(spans * d.group * SPAN * d.lv);
        e        = c.take<float>(d.group * d.pk * d.lv);
        st       = c.take<float>(d.lk * d.pv);
        g        = c.take<float>(2 * SPAN * d.lv);
        xy       = c.take<float>(2 * SPAN * d.lv);
        ke       = c.take<float>(SPAN * d.lv);
        lw       = c.take<float>(SPAN * d.lv);
        wt       = c.take<float>(SPAN * d.lv);
        products = c.take<float>(2 * SPAN * SPAN);
        sums     = c.take<float>(SPAN * SPAN);
        beside   = c.take<float>(WIDE * SPAN);
        dqk      = c.take<float>(2 * SPAN * d.lk);
        part     = c.take<float>(2 * SPAN * d.lk);
    }

    // One value head of a span. e becomes ∂S, its part of ∂q and ∂k is added to dqk, and ∂v, ∂a and ∂b go into dst.
    void head(const span & of, int64_t value, const float * s, const float * w, float * e, const ggml_tensor * dy,
              ggml_tensor * dst) const {
        const int64_t m = of.m, pk = d.pk, pv = d.pv, lk = d.lk, lv = d.lv;
        const gates   gate(d, of.first, of.n, m, value);
        of.weigh(gate);
        float * dv = g + m * lv;
        of.fetch_rows(dy, value * d.dv, g);
        dense(m, pv, d.dk, of.k(), lk, e, lv, ke, lv, false);
        transpose(m, m, of.p, SPAN, beside, SPAN);
        for (int64_t i = 0; i < m; i++) {
            scale_row(ke + i * lv, gate.left[i] * gate.beta[i], dv + i * lv, pv, false);
            scale_row(w + i * lv, gate.left[i] * gate.beta[i], lw + i * lv, pv, false);
        }
        dense(m, pv, m, beside, SPAN, g, lv, dv, lv, true);
        transpose(m, m, of.minus, SPAN, beside, SPAN);
        solve_back(m, pv, beside, dv, lv);
        for (int64_t i = 0; i < of.n; i++) {
            memcpy((float *) row(dst, of.first + i) + d.value_column(value), dv + i * lv, d.dv * sizeof(float));
        }
        for (int64_t i = 0; i < m; i++) {
            scale_row(g + i * lv, gate.grown[i], xy + i * lv, pv, false);
            scale_row(dv + i * lv, -gate.grown[i], xy + (m + i) * lv, pv, false);
        }
        transpose(m, pv, w, lv, wt, SPAN);
        dense(2 * m, m, d.dv, g, lv, wt, SPAN, products, SPAN, false);
        pairs_back(of, gate);

        alignas(64) float below[SPAN] = {};  // sums of `sums` over the rows from i on
        double            passed[SPAN], reads[SPAN], writes[SPAN];
        transpose(pk, pv, s, lv, st, lk);
        dense(2 * m, pk, d.dv, xy, lv, st, lk, part, lk, false);
        for (int64_t i = m - 1; i >= 0; i--) {
            for (int64_t c = 0; c < m; c += LANES) {
                store(below + c, load(below + c) + load(sums + i * SPAN + c));
            }
            passed[i] = dot(below, gate.beta, i);
            reads[i]  = dot(of.qk + i * lk, part + i * lk, pk) + dot(of.k() + i * lk, part + (m + i) * lk, pk);
            writes[i] = gate.left[i] * dot(ke + i * lv, w + i * lv, pv);
        }
        double after = gate.all * dot(e, s, d.dk * lv), all[SPAN];  // reads of i ≥ t and of S'
        for (int64_t i = m - 1; i >= 0; i--) {
            all[i] = after += reads[i];
        }
        double before = 0;
        for (int64_t i = 0; i < of.n; i++) {
            float *      to = (float *) row(dst, of.first + i) + d.value_column(d.values);
            const double dg = passed[i] + all[i] + before, beta = d.beta(of.first + i, value);
            to[value]            = (float) (dg * d.decay[value] * delta::sigmoid(d.biased(of.first + i, value)));
            to[d.values + value] = (float) ((below[i] + writes[i]) * beta * (1 - beta));
            before += gate.beta[i] * writes[i];
        }

        scale_row(part, 1, dqk, 2 * m * lk, true);
        transpose(pk, pv, e, lv, st, lk);
        dense(m, pk, d.dv, lw, lv, st, lk, dqk + m * lk, lk, true);
        dense(m, pk, m, products, SPAN, of.k(), lk, dqk, lk, true);
        dense(m, pk, 2 * m, beside, WIDE, of.qk, lk, dqk + m * lk, lk, true);
        scale_row(e, gate.all, e, d.dk * lv, false);
        dense(d.dk, pv, 2 * m, of.transposed, WIDE, xy, lv, e, lv, true);
    }

    // J and M, and what is derived from them.
    void pairs_back(const span & of, const gates & gate) const {
        const int64_t m = of.m;
        for (int64_t i = 0; i < m; i++) {
            float *j = products + i * SPAN, *k = products + (m + i) * SPAN;
            k[i] = 0;
            for (int64_t c = 0; c < m; c += LANES) {
                const vf by = load(of.decays + i * SPAN + c), x = by * load(j + c), y = -by * load(k + c),
                         beta = load(gate.beta + c);
                store(sums + i * SPAN + c, x * load(of.pairs + i * SPAN + c) + y * load(of.pairs + (m + i) * SPAN + c));
                store(j + c, x * beta);
                store(k + c, y * beta);
            }
        }
        transpose(m, m, products, SPAN, beside, WIDE);
        transpose(m, m, products + m * SPAN, SPAN, beside + m, WIDE);
        for (int64_t i = 0; i < m; i++) {
            scale_row(products + (m + i) * SPAN, 1, beside + i * WIDE + m, m, true);
        }
    }

    // ∂q and ∂k through the norms: s (d − x̂ (x̂·d)) for x̂ = s x.
    void put_keys(const span & of, int64_t head, ggml_tensor * dst) const {
        for (int64_t part = 0; part < 2; part++) {
            const float factor = part ? 1 : d.scale;
            for (int64_t i = 0; i < of.n; i++) {
                const float *x = of.qk + (part * of.m + i) * d.lk, *dx = dqk + (part * of.m + i) * d.lk;
                const float  s = of.inverse[part * SPAN + i], along = (float) (dot(x, dx, d.pk) / (factor * factor));
                float *      to = (float *) row(dst, of.first + i) + (part * d.keys + head) * d.dk;
                by_vectors(d.dk, [&](int64_t j, auto some) {
                    store(to + j, splat(s * factor) * (load(dx + j) - splat(along) * load(x + j)), some);
                });
            }
        }
    }
};

// Sources: dy, then those of delta_net. dst: ∂qkv, ∂a and ∂b side by side.
static void delta_net_back(const thread & t, const ggml_vera_delta_net & with, ggml_tensor * dst) {
    const ggml_tensor * dy = t.src[0];
    const delta         d(with, t.src + 1);
    const int64_t       one = d.pk * d.lv, size = d.group * one;
    const delta_texts   texts(t, t.src[6]);
    carver              counted = { 0 };
    span(d, counted), delta_back(d, texts.spans, texts.kept, counted);
    carver           c = { (uintptr_t) t.scratch(counted.next) };
    span             of(d, c);
    const delta_back back(d, texts.spans, texts.kept, c);
    float *          s = back.s, *kept = back.kept, *grads = back.grads;
    for (int64_t item; (item = t.take()) < texts.texts * d.keys;) {
        const int64_t text = item / d.keys, head = item % d.keys, begin = texts.begins[text],
                      end    = texts.begins[text + 1];
        int64_t       number = 0;  // of the span
        for (int64_t i = begin; i < end; i++) {
            const segment & run = texts.segments[i];
            enter(texts, run, size, kept, s);
            for (int64_t j = 0; j < run.length; j += SPAN, number++) {
                memcpy(back.states + number * size, s, size * sizeof(float));
                of.begin(run.first + j, run.length - j < SPAN ? run.length - j : SPAN, head);
                for (int64_t r = 0; r < d.group; r++) {
                    const int64_t value = head + r * d.keys;
                    const gates   g(d, of.first, of.n, of.m, value);
                    float *       w = back.ws + (number * d.group + r) * SPAN * d.lv;
                    of.weigh(g);
                    of.write(g, value, s + r * one, w, false);
                    of.step(g, w, s + r * one, back.lw);
                }
            }
            if (texts.places[i] >= 0) {
                memcpy(kept + texts.places[i] * size, s, size * sizeof(float));
                memset(grads + texts.places[i] * size, 0, size * sizeof(float));
            }
        }
        for (int64_t i = end - 1; i >= begin; i--) {
            const segment & run = texts.segments[i];
            if (texts.places[i] >= 0) {
                memcpy(back.e, grads + texts.places[i] * size, size * sizeof(float));
            } else {
                memset(back.e, 0, size * sizeof(float));
            }
            for (int64_t j = (run.length - 1) / SPAN * SPAN; j >= 0; j -= SPAN) {
                number--;
                of.begin(run.first + j, run.length - j < SPAN ? run.length - j : SPAN, head);
                memset(back.dqk, 0, 2 * of.m * d.lk * sizeof(float));
                for (int64_t r = 0; r < d.group; r++) {
                    back.head(of, head + r * d.keys, back.states + number * size + r * one,
                              back.ws + (number * d.group + r) * SPAN * d.lv, back.e + r * one, dy, dst);
                }
                back.put_keys(of, head, dst);
            }
            if (run.parent >= 0) {
                scale_row(back.e, 1, grads + texts.places[run.parent] * size, size, true);
            }
        }
    }
}

// Computes rows that continue texts, token by token, so that a row has the same bits whatever is computed with it.
// Sources: qkv, a, b, decay, bias, states, rows.
static void delta_net_cached(const thread & t, const ggml_vera_delta_net & with, ggml_tensor * dst) {
    const delta     d(with, t.src);
    const int32_t * rows = (const int32_t *) t.src[6]->data;
    const int64_t   n    = d.qkv->ne[1];
    float *         q, *k, *v, *w, *padded;
    const auto      place = [&](carver & c) {
        q      = c.take<float>(d.pk);
        k      = c.take<float>(d.pk);
        v      = c.take<float>(d.pv);
        w      = c.take<float>(d.pv);
        padded = c.take<float>(d.dk * d.pv);
    };
    carver c = { 0 };
    place(c);
    c = { (uintptr_t) t.scratch(c.next) };
    place(c);
    for (int64_t item = t.take(), begin = 0, end, runs = 0; begin < n; begin = end, runs++) {
        end = begin + 1;
        while (end < n && rows[2 * end] == rows[2 * begin]) {
            end++;
        }
        for (; item < (runs + 1) * d.values; item = t.take()) {
            const int64_t head  = item - runs * d.values;
            float *       state = (float *) row(t.src[5], rows[2 * begin]) + head * d.dk * d.dv,
                  *s            = d.dv == d.pv ? state : padded;
            for (int64_t i = 0; i < d.dk && s != state; i++) {
                memcpy(s + i * d.pv, state + i * d.dv, d.dv * sizeof(float));
                memset(s + i * d.pv + d.dv, 0, (d.pv - d.dv) * sizeof(float));
            }
            for (int64_t r = begin; r < end; r++) {
                if (rows[2 * r + 1] == 0) {
                    memset(s, 0, d.dk * d.pv * sizeof(float));
                }
                d.fetch_normed(r, head % d.keys * d.dk, d.scale, q);
                d.fetch_normed(r, (d.keys + head % d.keys) * d.dk, 1, k);
                delta::fetch(d.qkv, r, d.value_column(head), d.dv, d.pv, v);
                const vf grown = splat((float) std::exp(d.g(r, head))), beta = splat((float) d.beta(r, head));
                dense(1, d.pv, d.dk, k, d.pk, s, d.pv, w, d.pv, false);
                for (int64_t j = 0; j < d.pv; j += LANES) {
                    store(w + j, beta * (load(v + j) - grown * load(w + j)));
                }
                for (int64_t i = 0; i < d.dk; i++) {
                    for (int64_t j = 0; j < d.pv; j += LANES) {
                        store(s + i * d.pv + j, fused(splat(k[i]), load(w + j), grown * load(s + i * d.pv + j)));
                    }
                }
                dense(1, d.pv, d.dk, q, d.pk, s, d.pv, v, d.pv, false);
                put(dst, row(dst, r) + head * d.dv * (dst->type == BF16 ? 2 : 4), v, d.dv);
            }
            for (int64_t i = 0; i < d.dk && s != state; i++) {
                memcpy(state + i * d.dv, s + i * d.pv, d.dv * sizeof(float));
            }
        }
    }
}

// y = norm(x) ⊙ w ⊙ SiLU(z) for every head of w's length. Sources: x, z, w.
static void gated_norm(const thread & t, const ggml_vera_norm & with, ggml_tensor * dst) {
    const float * w = float_data(t.src[2]);
    const int64_t n = dst->ne[0], dim = t.src[2]->ne[0];
    each_row(t, dst, [&](int64_t r) {
        float *      buf = (float *) t.scratch(3 * n * sizeof(float)), *y = buf + 2 * n;
        const float *x = floats(t.src[0], row(t.src[0], r), buf, n),
                    *z = floats(t.src[1], row(t.src[1], r), buf + n, n);
        for (int64_t h = 0; h < n; h += dim) {
            normed(x + h, w, with.eps, y + h, dim);
        }
        typed(dst, r, [&](auto * to) {
            by_vectors(n, [&](int64_t i, auto some) {
                const vf v = load(z + i, some);
                store(to + i, load(y + i, some) * (v / (splat(1) + exp_of(-v))), some);
            });
        });
    });
}

// Sources: dy, x, z, w. dst: ∂x and ∂z side by side.
static void gated_norm_back(const thread & t, const ggml_vera_norm & with, ggml_tensor * dst) {
    const float * w = float_data(t.src[3]);
    const int64_t n = t.src[1]->ne[0], dim = t.src[3]->ne[0];
    each_row(t, t.src[1], [&](int64_t r) {
        float *      buf = (float *) t.scratch(5 * n * sizeof(float)), *y = buf + 3 * n, *by = buf + 4 * n;
        const float *dy = floats(t.src[0], row(t.src[0], r), buf, n),
                    *x  = floats(t.src[1], row(t.src[1], r), buf + n, n);
        const float * z = floats(t.src[2], row(t.src[2], r), buf + 2 * n, n);
        typed(dst, r, [&](auto * d) {
            for (int64_t h = 0; h < n; h += dim) {
                normed(x + h, w, with.eps, y + h, dim);
            }
            by_vectors(n, [&](int64_t i, auto some) {
                const vf v = load(z + i, some), s = splat(1) / (splat(1) + exp_of(-v)), up = load(dy + i, some);
                store(by + i, up * v * s, some);
                store(d + n + i, up * load(y + i, some) * (s * (splat(1) + v * (splat(1) - s))), some);
            });
            for (int64_t h = 0; h < n; h += dim) {
                normed_back(by + h, x + h, w, with.eps, nullptr, d + h, dim);
            }
        });
    });
}

}  // namespace KERNELS
}  // namespace vera
