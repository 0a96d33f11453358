// The operations of VeRA: W + diag(b) B diag(d) A, and the gradients of b and d.
#pragma once

#include "integers.hpp"
#include "unpack.hpp"

namespace vera {
namespace KERNELS {

// to = the sum of `count` rows of n floats.
static inline void add_parts(const float * parts, int64_t count, float * to, int64_t n) {
    memcpy(to, parts, n * sizeof(float));
    for (int64_t i = 1; i < count; i++) {
        for (int64_t j = 0; j < n; j++) {
            to[j] += parts[i * n + j];
        }
    }
}

// W + diag(b) B diag(d) A, written into dst [k, m], float32 or bfloat16, the type in which the product is computed.
// Sources: w [k, m], A [≥ k, r], B [r, ≥ m], b [m], d [r]; the last four may be NULL, for W alone.
static void merge(const thread & t, const ggml_vera_linear & with, ggml_tensor * dst) {
    const ggml_tensor *w = t.src[0], *a = t.src[1], *rows = t.src[2], *b = t.src[3], *d = t.src[4];
    const int64_t      in = w->ne[0], out = w->ne[1];
    if (!b) {
        for (int64_t i; (i = t.take()) < out;) {
            float * buf = (float *) t.scratch(in * sizeof(float));
            unpack(w, row(w, i), buf, in);
            put(dst, row(dst, i), buf, in);
        }
        return;
    }
    const product p = {
        out, in, a->ne[1], { rows, true }, { a, false }, d, strip_width(t, w, true, dst->type == BF16, in), GROUP
    };
    const size_t block = ggml_blck_size(w->type), size = ggml_type_size(w->type);
    const auto   add = [&](int64_t r, int64_t n, int64_t n0, int64_t cols, float * c, int64_t ldc) {
        alignas(64) float buf[256];
        for (int64_t i = 0; i < n; i++, c += ldc) {
            unpack(w, row(w, r + i) + n0 / block * size, buf, cols);
            const float by = float_data(b)[r + i];
            for (int64_t j = 0; j < cols; j++) {
                buf[j] += by * c[j];
            }
            put(dst, row(dst, r + i) + n0 * (dst->type == BF16 ? 2 : 4), buf, cols);
        }
    };
    multiply_trained(t, p, dst->type == BF16, with.way, false, add);
}

// With T [r, m] = x · g over their common dimension and E = B ⊙ T: ∂b = E d and ∂d = Eᵀ b. (Write out the sum of G ⊙
// diag(b) B diag(d) A and derive it.) x is either A, whose rows meet those of the weight's gradient G [k, m], or u = A
// x [r, tokens], which meets the gradient g [m, tokens]. Each strip of E gives a part of every ∂b, each CHUNK of its
// rows a part of every ∂d; the parts are added in their order. Sources: G or g, x, B [r, ≥ m], b [m], d [r]. dst: ∂b
// [m], then ∂d [r].
static void vera_gradient(const thread & t, ggml_tensor * dst, bool tokens, int way) {
    const ggml_tensor *g = t.src[0], *x = t.src[1], *rows = t.src[2];
    const float *      b = float_data(t.src[3]), *d = float_data(t.src[4]);
    const int64_t      out = rows->ne[1], rank = rows->ne[0], strips = (rank + STRIP - 1) / STRIP,
                       chunks = (out + CHUNK - 1) / CHUNK;
    const product p = { out, rank, tokens ? g->ne[1] : g->ne[0], { g, !tokens }, { x, !tokens }, {}, STRIP, CHUNK };
    if (t.ith == 0) {
        t.parts((strips * out + chunks * rank) * sizeof(float));
    }
    t.barrier();
    float *    db = (float *) t.parts(0), *dd = db + strips * out;
    const auto add = [&](int64_t o, int64_t n, int64_t r, int64_t cols, float * c, int64_t ldc) {
        float *           sums = dd + o / CHUNK * rank + r, *to = db + r / STRIP * out;
        alignas(64) float buf[STRIP];
        memset(sums, 0, cols * sizeof(float));
        for (int64_t i = 0; i < n; i++, c += ldc) {
            const float * of = floats(rows, row(rows, o + i) + r * (rows->type == BF16 ? 2 : 4), buf, cols);
            const float   by = b[o + i];
            vf            v  = vf{};
            int64_t       j  = 0;
            for (; j + LANES <= cols; j += LANES) {
                const vf e = load(of + j) * load(c + j);
                store(sums + j, load(sums + j) + splat(by) * e);
                v += load(d + r + j) * e;
            }
            float s = sum(v);
            for (; j < cols; j++) {
                const float e = of[j] * c[j];
                sums[j] += by * e;
                s += d[r + j] * e;
            }
            to[o + i] = s;
        }
    };
    multiply_trained(t, p, g->type == BF16, way, true, add);
    t.barrier();
    if (t.ith == 0) {
        float * result = (float *) dst->data;
        add_parts(db, strips, result, out);
        add_parts(dd, chunks, result + out, rank);
    }
}

// From the gradient of the merged weight.
static void merged_gradient(const thread & t, const ggml_vera_linear & with, ggml_tensor * dst) {
    vera_gradient(t, dst, false, with.way);
}

// From the gradient of the result, and u.
static void factored_gradient(const thread & t, const ggml_vera_linear & with, ggml_tensor * dst) {
    vera_gradient(t, dst, true, with.way);
}

}  // namespace KERNELS
}  // namespace vera
