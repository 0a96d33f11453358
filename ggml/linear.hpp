// Products with the weight of a linear layer: forward, the gradient of its input, and the gradient of the weight.
#pragma once

#include "bytes.hpp"
#include "dots.hpp"
#include "product.hpp"

namespace vera {
namespace KERNELS {

// Computes a product in a ggml_vera_way.
template <typename F> static void multiply(const thread & t, const product & p, bool half, int way, F use) {
    if (way >= GGML_VERA_BYTES && has_quants(p.b.t->type)) {
        multiply_bytes(t, p, way == GGML_VERA_INTERLEAVED, use);
    } else if (way && !(HAS_BF16 && half)) {
        multiply_dots(t, p, use);
    } else {
        multiply(t, p, half, use);
    }
}

// dst = C ⊙ by + acc. Results of several layers lie side by side in a row.
static void multiply_into(const thread & t, ggml_tensor * dst, const product & p, bool half, const factors & by,
                          const ggml_tensor * acc, int way = 0) {
    const int64_t tokens = p.m / p.layers;
    const auto    finish = [&](int64_t r, int64_t rows, int64_t n0, int64_t cols, float * c, int64_t ldc) {
        const size_t size = dst->type == BF16 ? 2 : 4;
        for (int64_t i = 0; i < rows; i++, c += ldc) {
            const layer_row at(r + i, tokens);
            const int64_t   column = at.layer * p.n + n0;
            const float *   more   = acc ? (const float *) row(acc, at.token) + column : nullptr;
            char *          to     = row(dst, at.token) + column * size;
            if (dst->type == F32) {
                by.multiply(at.layer, at.token, n0, c, more, (float *) to, cols);
            } else {
                by.multiply(at.layer, at.token, n0, c, more, (uint16_t *) to, cols);
            }
        }
    };
    multiply(t, p, half, way, finish);
}

// y = W (s ⊙ x) ⊙ t + acc, [m, n], for w [k, m] of any type that dequantises and x [k, n]. s [k] and t [m] are float32,
// or NULL for ones; acc is float32, or NULL for 0. A product is computed in bfloat16 if x has that type and the
// processor multiplies it, else in float32; sums are float32.
// INTERLEAVED may compute l layers that share W: s is [k, l], t [m, l], and the result [m · l, n]. With slots [n],
// int32, s [k, ·] and t [m, ·] are tables of float16, and column i takes row slots[i] of each. Sources: w, x, s, t,
// acc, slots.
static void linear(const thread & t, const ggml_vera_linear & with, ggml_tensor * dst) {
    ggml_tensor ** src    = t.src;
    const int64_t  layers = src[2] && !src[5] ? src[2]->ne[1] : 1;
    const bool     half   = src[1]->type == BF16;
    const product  p      = { src[1]->ne[1] * layers,
                              src[0]->ne[1],
                              src[0]->ne[0],
                              { src[1], true },
                              { src[0], true },
                              { src[2], src[5] },
                              strip_width(t, src[0], false, half, src[0]->ne[1]),
                              GROUP,
                              layers };
    multiply_into(t, dst, p, half, { src[3], src[5] }, src[4], with.way);
}

// Wᵀ (s ⊙ g) ⊙ t + acc [k, n] for w [k, m] and the gradient g [m, n]; s [m] and t [k]. Sources: w, g, s, t, acc.
static void linear_back(const thread & t, ggml_tensor * dst) {
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
    multiply_into(t, dst, p, half, src[3], src[4]);
}

// G = Σ_tokens g xᵀ [k, m] for g [m, n] and x [k, n], of one type. Sources: g, x.
static void weight_gradient(const thread & t, ggml_tensor * dst) {
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
                  half, {}, nullptr);
}

}  // namespace KERNELS
}  // namespace vera
