// Products with the weight of a linear layer: forward, the gradient of its input, and the gradient of the weight.
#pragma once

#include "bytes.hpp"
#include "dots.hpp"
#include "integers.hpp"
#include "product.hpp"

namespace vera {
namespace KERNELS {

// Computes a product in a ggml_vera_way, other than INTEGERS.
template <typename F> static void multiply(const thread & t, const product & p, bool half, int way, F use) {
    if (way >= GGML_VERA_BYTES && has_quants(p.b.t->type)) {
        multiply_bytes(t, p, way == GGML_VERA_INTERLEAVED, use);
    } else if (way && !(HAS_BF16 && half)) {
        multiply_dots(t, p, use);
    } else {
        multiply(t, p, half, use);
    }
}

// dst = C ⊙ by + acc.
static void multiply_into(const thread & t, ggml_tensor * dst, const product & p, bool half, const factors & by,
                          const ggml_tensor * acc, int way = 0) {
    const auto use = [&](int64_t r, int64_t rows, int64_t n0, int64_t cols, const float * c, int64_t ldc) {
        const size_t size = dst->type == BF16 ? 2 : 4;
        for (int64_t i = r; i < r + rows; i++, c += ldc) {
            const float * more = acc ? (const float *) row(acc, i) + n0 : nullptr;
            char *        to   = row(dst, i) + n0 * size;
            if (dst->type == F32) {
                by.multiply(i, n0, c, more, (float *) to, cols);
            } else {
                by.multiply(i, n0, c, more, (uint16_t *) to, cols);
            }
        }
    };
    if (way == GGML_VERA_INTEGERS) {
        const bool plain = dst->type == F32 && !by.t && !acc;
        multiply_integers(t, p, true, use, [&](int64_t r, int64_t n0, int64_t cols) {
            return plain && cols % PANEL == 0 ? place{ (float *) row(dst, r) + n0, (int64_t) (dst->nb[1] / 4), false }
                                              : place{};
        });
    } else {
        multiply(t, p, half, way, use);
    }
}

// The product of w and the columns of x times `by`.
static product linear_product(const thread & t, const ggml_tensor * w, const ggml_tensor * x, const factors & by) {
    const bool half = x->type == BF16;
    return {
        x->ne[1], w->ne[1], w->ne[0], { x, true }, { w, true }, by, strip_width(t, w, false, half, w->ne[1]), GROUP
    };
}

// y = W (s ⊙ x) ⊙ t + acc, [m, n], for w [k, m] of any type that dequantises and x [k, n]. s [k] and t [m] are float32,
// or NULL for ones; acc is float32, or NULL for 0. A product is computed in bfloat16 if x has that type and the
// processor multiplies it, else in float32; sums are float32. Sources: w, x, s, t, acc.
static void linear(const thread & t, const ggml_vera_linear & with, ggml_tensor * dst) {
    ggml_tensor ** src = t.src;
    multiply_into(t, dst, linear_product(t, src[0], src[1], src[2]), src[1]->type == BF16, src[3], src[4], with.way);
}

// A float32 matrix that is part of x: columns from `column` on, n rows from `first` on.
static ggml_tensor part_of(const ggml_tensor * x, int64_t column, int64_t first, int64_t n) {
    ggml_tensor part = *x;
    part.data        = row(x, first) + column * (x->type == BF16 ? 2 : 4);
    part.ne[0] -= column;
    part.ne[1] = n;
    return part;
}

// factors::multiply for the columns of a strip, most often a whole one.
template <typename S> static inline void finish(const S * by, const float * c, const float * acc, float * to,
                                                int64_t cols) {
    if (cols < BYTE_COLS) {
        factors::multiply(by, c, acc, to, cols);
        return;
    }
    for (int j = 0; j < BYTE_COLS; j += LANES) {
        vf v = load(c + j);
        if (by) {
            v = v * load(by + j);
            in_register(v);  // no fused multiply-add
        }
        store(to + j, acc ? v + load(acc + j) : v);
    }
}

// Several matrices, each times some columns of one x: W x + acc in y, or W x in u, float32. Quantised ones meet x as
// bytes, rounded once, without a wait between them. Sources: x, acc, u, the matrices; acc and u may be NULL. dst: y.
static void linears(const thread & t, const ggml_vera_linears & with, ggml_tensor * dst) {
    const ggml_tensor *x = t.src[0], *acc = t.src[1];
    const auto         w    = [&](int i) { return t.src[3 + i]; };
    const auto         into = [&](int i) { return with.part[i].second ? t.src[2] : dst; };
    byte_matrix        bytes[GGML_VERA_PARTS];
    int                of[GGML_VERA_PARTS], count = 0;
    for (int i = 0; i < with.n; i++) {
        const ggml_vera_part & part = with.part[i];
        if (part.way >= GGML_VERA_BYTES && has_quants(w(i)->type)) {
            of[count]      = i;
            bytes[count++] = { w(i), part.way == GGML_VERA_INTERLEAVED, part.first, part.rows };
        }
    }
    if (count > 0) {
        multiply_bytes(
            t, bytes, count, x->ne[1], x->ne[0],
            [&](int64_t i, float * buf) { return floats(x, row(x, i), buf, x->ne[0]); }, [](int, int64_t) {},
            [&](int j, int64_t n0, int64_t cols, const float * c) {
                const ggml_vera_part & part = with.part[of[j]];
                ggml_tensor *          y    = into(of[j]);
                for (int64_t i = part.first; i < part.first + part.rows; i++, c += BYTE_COLS) {
                    const int64_t column = part.column + n0;
                    const float * more   = acc && !part.second ? (const float *) row(acc, i) + column : nullptr;
                    finish((const float *) nullptr, c, more, (float *) row(y, i) + column, cols);
                }
            });
    }
    bool first = count == 0;
    for (int i = 0; i < with.n; i++) {
        const ggml_vera_part & part = with.part[i];
        if (part.way >= GGML_VERA_BYTES && has_quants(w(i)->type)) {
            continue;
        }
        if (!first) {
            t.barrier();
        }
        first            = false;
        ggml_tensor some = part_of(x, 0, part.first, part.rows),
                    to   = part_of(into(i), part.column, part.first, part.rows), more;
        if (acc && !part.second) {
            more = part_of(acc, part.column, part.first, part.rows);
        }
        multiply_into(t, &to, linear_product(t, w(i), &some, {}), x->type == BF16, {},
                      acc && !part.second ? &more : nullptr, part.way);
    }
}

// y += b ⊙ (B (d ⊙ u)) for the layers of a group, whose results lie side by side in y [Σ m, n], and their parts of u
// [·, n]: float32. A layer's b [m] and, behind it, d [r] begin at its offset in the vectors: float32 [·], or with slots
// [n], int32, a table of float16 [·, ·], of which column i takes row slots[i]. Sources: u, vectors, slots, each layer's
// B [r, m]; slots may be NULL. dst: y.
static void add_factored(const thread & t, const ggml_vera_factored & with, ggml_tensor * dst) {
    const ggml_tensor *u = t.src[0], *vectors = t.src[1], *slots = t.src[2];
    const auto         rows = [&](int i) { return t.src[3 + i]; };
    const int64_t      n = u->ne[1], rank = rows(0)->ne[0];
    factors            b[GGML_VERA_PARTS], d[GGML_VERA_PARTS];
    byte_matrix        bytes[GGML_VERA_PARTS];
    bool               fused = with.way >= GGML_VERA_BYTES;
    for (int i = 0; i < with.n; i++) {
        b[i]     = factors(vectors, slots, with.layer[i].offset);
        d[i]     = factors(vectors, slots, with.layer[i].offset + rows(i)->ne[1]);
        bytes[i] = { rows(i), with.way == GGML_VERA_INTERLEAVED, i * n, n };
        fused    = fused && has_quants(rows(i)->type) && rows(i)->ne[0] == rank;
    }
    if (!fused) {
        for (int i = 0; i < with.n; i++) {
            if (i > 0) {
                t.barrier();
            }
            ggml_tensor some = part_of(u, with.layer[i].rank, 0, n), to = part_of(dst, with.layer[i].column, 0, n);
            multiply_into(t, &to, linear_product(t, rows(i), &some, d[i]), false, b[i], &to, with.way);
        }
        return;
    }
    multiply_bytes(
        t, bytes, with.n, with.n * n, rank,
        [&](int64_t i, float * buf) {
            const int64_t layer = i / n, token = i % n;
            if (slots && token + 1 < n) {
                prefetch(d[layer].of_row(token + 1, 0), rank * 2);
            }
            d[layer].multiply(token, 0, (const float *) row(u, token) + with.layer[layer].rank, nullptr, buf, rank);
            return (const float *) buf;
        },
        [&](int layer, int64_t n0) {
            for (int64_t i = 0; slots && i < n; i++) {
                __builtin_prefetch(b[layer].of_row(i, n0 + 2 * BYTE_COLS));
            }
        },
        [&](int layer, int64_t n0, int64_t cols, const float * c) {
            for (int64_t i = 0; i < n; i++, c += BYTE_COLS) {
                float *      y  = (float *) row(dst, i) + with.layer[layer].column + n0;
                const char * by = b[layer].of_row(i, n0);
                if (slots) {
                    finish((const half *) by, c, y, y, cols);
                } else {
                    finish((const float *) by, c, y, y, cols);
                }
            }
        });
}

// Wᵀ (s ⊙ g) ⊙ t + acc [k, n] for w [k, m] and the gradient g [m, n]; s [m] and t [k]. Sources: w, g, s, t, acc.
static void linear_back(const thread & t, const ggml_vera_linear & with, ggml_tensor * dst) {
    ggml_tensor ** src  = t.src;
    const bool     half = src[1]->type == BF16;
    const product  p    = { src[1]->ne[1],
                            src[0]->ne[0],
                            src[0]->ne[1],
                            { src[1], true },
                            { src[0], false },
                            src[2],
                            strip_width(t, src[0], true, half, src[0]->ne[0]),
                            GROUP };
    multiply_into(t, dst, p, half, src[3], src[4], with.way);
}

// G = Σ_tokens g xᵀ [k, m] for g [m, n] and x [k, n], of one type. Sources: g, x.
static void weight_gradient(const thread & t, const ggml_vera_linear & with, ggml_tensor * dst) {
    const ggml_tensor *g = t.src[0], *x = t.src[1];
    const bool         half = g->type == BF16;
    multiply_into(t, dst,
                  { g->ne[0],
                    x->ne[0],
                    g->ne[1],
                    { g, false },
                    { x, false },
                    {},
                    strip_width(t, x, true, half, x->ne[0]),
                    GROUP },
                  half, {}, nullptr, with.way);
}

}  // namespace KERNELS
}  // namespace vera
