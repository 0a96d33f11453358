// veratune's operations on a graphics processor: which kernels and products a node consists of. Before including this,
// define
//
//   struct machine {
//       // memory of the device, until the node is done
//       void * scratch(size_t bytes);
//       // C = A B + beta C, where columns of a matrix are its `rows`; A and B have one type
//       void gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, matrix a, matrix b, float beta, matrix c);
//       // dequantises whole blocks of any type
//       void floats(unsigned type, const void * from, float * to, int64_t n);
//       // the same into bfloat16; false if it does not know the type
//       bool halves(unsigned type, const void * from, void * to, int64_t n);
//       // few_columns of a quantised matrix; false if it does not know the type
//       bool few(unsigned type, dim3 grid, const char * w, int64_t row, …);
//       // y = W x for at most BYTES_AT_ONCE columns x, which are rounded to 8 bits; false if it has no such product
//       bool bytes(const ggml_tensor * w, matrix x, int64_t n, matrix y);
//   };
//
// and LAUNCH(machine, kernel, dim3 grid, threads, shared bytes, arguments …), which launches a kernel and checks that.
#pragma once

#include <algorithm>
#include <climits>

#include "../call.h"
#include "attention.hpp"
#include "growing.hpp"
#include "kernels.hpp"

namespace vera {
namespace cuda {

static int64_t pieces(int64_t n, int64_t of) { return (n + of - 1) / of; }

static matrix view(const ggml_tensor * t) {
    const bool half = (int) t->type == BF16;
    return { (char *) t->data, (int64_t) (t->nb[1] / (half ? 2 : 4)), half };
}

static matrix none() { return { nullptr, 0, false }; }

static const float * float_data(const ggml_tensor * t) { return t ? (const float *) t->data : nullptr; }

static matrix scratch(machine & m, int64_t n, int64_t rows, bool half) {
    return { (char *) m.scratch((size_t) (n * rows * (half ? 2 : 4))), n, half };
}

static float * scratch_floats(machine & m, int64_t n) { return (float *) m.scratch((size_t) n * sizeof(float)); }

static void scaled(machine & m, matrix from, matrix to, int64_t n, int64_t rows, const float * by_row,
                   const float * by_column, matrix acc) {
    const auto grid_of = [&](int64_t n) {
        return dim3((unsigned) std::min<int64_t>(pieces(n, THREADS), 64), (unsigned) std::min<int64_t>(rows, 65535));
    };
    if (n % 4 == 0 && from.by_fours() && to.by_fours() && (uintptr_t) by_column % 16 == 0 &&
        (!acc.data || acc.by_fours())) {
        LAUNCH(m, scale4, grid_of(n / 4), THREADS, 0, from, to, n / 4, rows, by_row, (const float4 *) by_column, acc);
        return;
    }
    LAUNCH(m, scale, grid_of(n), THREADS, 0, from, to, n, rows, by_row, by_column, acc);
}

static void copied(machine & m, matrix from, matrix to, int64_t n, int64_t rows) {
    scaled(m, from, to, n, rows, nullptr, nullptr, none());
}

// Rows r … r + rows of w, scaled, in float32 or bfloat16: in `to`, which has room for them, or where they are.
static matrix unpacked(machine & m, const ggml_tensor * w, int64_t r, int64_t rows, matrix to, const float * by_row,
                       const float * by_column) {
    const int64_t n      = w->ne[0];
    const bool    scales = by_row || by_column;
    by_row               = by_row ? by_row + r : nullptr;
    if ((int) w->type == F32 || (int) w->type == BF16) {
        const matrix from = view(w).at(r, 0);
        if (!scales && from.half == to.half) {
            return from;
        }
        scaled(m, from, to, n, rows, by_row, by_column, none());
        return to;
    }
    const char * from = (const char *) w->data + r * w->nb[1];
    // rows have gaps between them
    if (w->nb[1] != (size_t) n / ggml_blck_size(w->type) * ggml_type_size(w->type) && rows > 1) {
        for (int64_t i = 0; i < rows; i++) {
            unpacked(m, w, r + i, 1, to.at(i, 0), by_row ? by_row - r : nullptr, by_column);
        }
        return to;
    }
    if (!scales && to.half && m.halves(w->type, from, to.data, n * rows)) {
        return to;
    }
    if (!to.half) {
        m.floats(w->type, from, (float *) to.data, n * rows);
        if (scales) {
            scaled(m, to, to, n, rows, by_row, by_column, none());
        }
        return to;
    }
    // in parts that stay in the cache
    const int64_t each  = std::max<int64_t>(1, (4 << 20) / n);
    const matrix  whole = scratch(m, n, std::min(each, rows), false);
    for (int64_t i = 0; i < rows; i += each) {
        const int64_t some = std::min(each, rows - i);
        m.floats(w->type, from + i * w->nb[1], (float *) whole.data, n * some);
        scaled(m, whole, to.at(i, 0), n, some, by_row ? by_row + i : nullptr, by_column, none());
    }
    return to;
}

// How many rows of a matrix are unpacked at a time.
static int64_t unpacked_rows(const ggml_tensor * w) {
    return std::max<int64_t>(1, std::min<int64_t>(w->ne[1], (64 << 20) / w->ne[0]));
}

// product() for a few columns in float32, where unpacking W would be most of the work. False if it does not know W's
// type.
static bool few_columns(machine & m, const ggml_tensor * w, const ggml_tensor * x, const float * by_row,
                        const float * by_column, matrix acc, matrix y) {
    const int64_t k = w->ne[0], out = w->ne[1];
    if (x->ne[1] > FEW || (int) x->type != F32 || k % 2) {
        return false;
    }
    const dim3 grid((unsigned) pieces(out, THREADS / 32));
    if ((int) w->type == F32 || (int) w->type == BF16) {
        LAUNCH(m, few, grid, THREADS, 0, view(w), out, k, view(x), (int) x->ne[1], by_row, by_column, acc, y);
        return true;
    }
    return m.few(w->type, grid, (const char *) w->data, (int64_t) w->nb[1], out, k, view(x), (int) x->ne[1], by_row,
                 by_column, acc, y);
}

// Rows that are rounded to 8 bits at a time, and at most: more times than that, reading W's blocks takes longer than
// unpacking them.
enum { BYTES_AT_ONCE = 8, MOST_BYTES = 32 };

// product() of float32 for generation: up to MOST_BYTES columns are rounded to 8 bits, more to bfloat16. False if W is
// not quantised.
static bool rounded_product(machine & m, const ggml_tensor * w, const ggml_tensor * x, const float * by_row,
                            const float * by_column, matrix acc, matrix to) {
    const int64_t k = w->ne[0], out = w->ne[1], n = x->ne[1];
    if (ggml_blck_size(w->type) == 1 || (int) x->type != F32) {
        return false;
    }
    // the pair's matrices are small: one kernel that scales as well is faster than four
    if ((by_row || by_column) && few_columns(m, w, x, by_row, by_column, acc, to)) {
        return true;
    }
    matrix in = view(x);
    if (by_column) {
        const matrix scaled_x = scratch(m, k, n, false);
        scaled(m, in, scaled_x, k, n, nullptr, by_column, none());
        in = scaled_x;
    }
    const bool   straight = !to.half && !by_row && !acc.data;
    const matrix y        = straight ? to : scratch(m, out, n, false);
    bool         rounded  = n <= MOST_BYTES;
    for (int64_t r = 0; rounded && r < n; r += BYTES_AT_ONCE) {
        rounded = m.bytes(w, in.at(r, 0), std::min<int64_t>(BYTES_AT_ONCE, n - r), y.at(r, 0));
    }
    if (!rounded) {
        const matrix half_x = scratch(m, k, n, true);
        copied(m, in, half_x, k, n);
        const int64_t step = unpacked_rows(w);
        const matrix  room = scratch(m, k, step, true);
        for (int64_t r = 0; r < out; r += step) {
            const int64_t rows = std::min(step, out - r);
            m.gemm(true, false, rows, n, k, unpacked(m, w, r, rows, room, nullptr, nullptr), half_x, 0, y.at(0, r));
        }
    }
    if (!straight) {
        scaled(m, y, to, out, n, nullptr, by_row, acc);
    }
    return true;
}

// y = diag(by_row) W diag(by_column) x + acc, or with the transposed. W is scaled rather than x and y, which would be
// one more pass over each.
static void product(machine & m, const ggml_tensor * w, const ggml_tensor * x, const float * by_row,
                    const float * by_column, const ggml_tensor * acc, ggml_tensor * dst, bool back) {
    const matrix in = view(x), to = view(dst), more = acc ? view(acc) : none();
    if (!back && few_columns(m, w, x, by_row, by_column, more, to)) {
        return;
    }
    const int64_t n = x->ne[1], step = unpacked_rows(w);
    const bool    once     = !back || step >= w->ne[1];
    const bool    straight = !to.half || (in.half && !acc && once);
    const matrix  y        = straight ? to : scratch(m, dst->ne[0], n, false);
    float         beta     = 0;
    if (acc && straight) {
        if (more.data != to.data) {
            copied(m, more, to, dst->ne[0], n);
        }
        beta = 1;
    }
    const matrix room = scratch(m, w->ne[0], step, in.half);
    for (int64_t r = 0; r < w->ne[1]; r += step) {
        const int64_t rows = std::min(step, w->ne[1] - r);
        const matrix  part = unpacked(m, w, r, rows, room, by_row, by_column);
        if (back) {
            m.gemm(false, false, w->ne[0], n, rows, part, in.at(0, r), beta, y);
            beta = 1;
        } else {
            m.gemm(true, false, rows, n, w->ne[0], part, in, beta, y.at(0, r));
        }
    }
    if (!straight) {
        scaled(m, y, to, dst->ne[0], n, nullptr, nullptr, more);
    }
}

// A matrix, converted if it has the other type.
static matrix as(machine & m, const ggml_tensor * t, int64_t n, bool half) {
    const matrix from = view(t);
    if (from.half == half) {
        return from;
    }
    const matrix to = scratch(m, n, t->ne[1], half);
    copied(m, from, to, n, t->ne[1]);
    return to;
}

// Sources: g, x.
static void weight_gradient(machine & m, const ggml_tensor * g, const ggml_tensor * x, ggml_tensor * dst) {
    const matrix in = view(x), to = view(dst);
    const bool   straight = in.half || !to.half;
    const matrix y        = straight ? to : scratch(m, dst->ne[0], dst->ne[1], false);
    m.gemm(false, true, x->ne[0], g->ne[0], x->ne[1], in, view(g), 0, y);
    if (!straight) {
        copied(m, y, to, dst->ne[0], dst->ne[1]);
    }
}

// Sources: w, A, B, b, d; the last four may be NULL, for W alone.
static void merge(machine & m, ggml_tensor * const * src, ggml_tensor * dst) {
    const ggml_tensor * w  = src[0];
    const int64_t       in = w->ne[0], step = unpacked_rows(w);
    const matrix        to = view(dst), room = to.half ? scratch(m, in, step, false) : none();
    const matrix        a    = src[3] ? as(m, src[1], in, to.half) : none();
    const matrix        pair = src[3] ? scratch(m, src[2]->ne[0], step, to.half) : none();
    for (int64_t r = 0; r < w->ne[1]; r += step) {
        const int64_t rows  = std::min(step, w->ne[1] - r);
        const matrix  place = to.at(r, 0), sum = to.half ? room : place;
        const matrix  part = unpacked(m, w, r, rows, sum, nullptr, nullptr);
        if (part.data != sum.data) {
            copied(m, part, sum, in, rows);
        }
        if (src[3]) {
            const matrix up = unpacked(m, src[2], r, rows, pair, float_data(src[3]), float_data(src[4]));
            m.gemm(false, false, in, rows, src[1]->ne[1], a, up, 1, sum);
        }
        if (to.half) {
            copied(m, sum, place, in, rows);
        }
    }
}

// ∂b and ∂d from T [rank, out].
static void vectors_gradient(machine & m, matrix t, const ggml_tensor * rows, const ggml_tensor * b,
                             const ggml_tensor * d, ggml_tensor * dst) {
    const int64_t rank = rows->ne[0], out = rows->ne[1] < b->ne[0] ? rows->ne[1] : b->ne[0],
                  blocks = pieces(out, GRAD_ROWS);
    const matrix  parts  = scratch(m, rank, blocks, false);
    float *       to     = (float *) dst->data;
    LAUNCH(m, grad_b, dim3((unsigned) out), THREADS, 0, view(rows), (const float *) t.data, float_data(d), to, rank);
    LAUNCH(m, grad_d_parts, dim3((unsigned) pieces(rank, THREADS), (unsigned) blocks), THREADS, 0, view(rows),
           (const float *) t.data, float_data(b), (float *) parts.data, rank, out);
    LAUNCH(m, add_parts, dim3((unsigned) pieces(rank, THREADS)), THREADS, 0, (const float *) parts.data, blocks,
           to + out, rank);
}

// Sources: G, A, B, b, d.
static void merged_gradient(machine & m, ggml_tensor * const * src, ggml_tensor * dst) {
    const matrix  grad = view(src[0]);
    const int64_t in = src[0]->ne[0], rank = src[1]->ne[1], out = src[0]->ne[1];
    const matrix  t = scratch(m, rank, out, false);
    m.gemm(true, false, rank, out, in, as(m, src[1], in, grad.half), grad, 0, t);
    vectors_gradient(m, t, src[2], src[3], src[4], dst);
}

// Sources: g, u, B, b, d.
static void factored_gradient(machine & m, ggml_tensor * const * src, ggml_tensor * dst) {
    const int64_t rank = src[1]->ne[0], out = src[0]->ne[0];
    const matrix  t = scratch(m, rank, out, false);
    m.gemm(false, true, rank, out, src[0]->ne[1], view(src[1]), view(src[0]), 0, t);
    vectors_gradient(m, t, src[2], src[3], src[4], dst);
}

static attention_pack pack_of(machine & m, const ggml_vera_attention & with, const ggml_tensor * qkv,
                              const ggml_tensor * segments, const ggml_tensor * sinks, int64_t & tiles) {
    const int64_t  dim = qkv->ne[0] / (with.heads + 2 * with.kv_heads);
    attention_pack a   = { view(qkv),
                           with.heads,
                           with.kv_heads,
                           (int) dim,
                           with.window > 0 ? with.window : INT_MAX,
                           with.scale,
                           with.cap,
                           float_data(sinks),
                           (const segment *) segments->data,
                           (int) segments->ne[1],
                           nullptr };
    tiles              = qkv->ne[1] / TILE + a.count;
    place * all        = (place *) m.scratch(tiles * sizeof(place));
    LAUNCH(m, find_places, dim3(1), THREADS, 0, a.segments, a.count, all, (int) tiles);
    a.places = all;
    return a;
}

// The longest head that there are kernels for.
enum { MOST_DIM = 256 };

// Calls f with the head length that kernels are compiled for, at least dim.
template <typename F> static void with_dim(int dim, F f) {
    if (dim <= 64) {
        f(std::integral_constant<int, 64>());
    } else if (dim <= 128) {
        f(std::integral_constant<int, 128>());
    } else {
        f(std::integral_constant<int, 256>());
    }
}

static size_t shared_bytes(int d, int tiles) { return (tiles * TILE * (d + 4) + SCORES) * sizeof(float); }

// Sources: qkv, segments, sinks or NULL.
static void attention(machine & m, const ggml_vera_attention & with, ggml_tensor * const * src, ggml_tensor * dst) {
    int64_t              tiles;
    const attention_pack a = pack_of(m, with, src[0], src[1], src[2], tiles);
    with_dim(a.dim, [&](auto d) {
        LAUNCH(m, attend<d.value>, dim3((unsigned) tiles, (unsigned) a.heads), ATTENTION_THREADS,
               shared_bytes(d.value, 3), a, view(dst));
    });
}

// Sources: dout, qkv, segments, sinks or NULL.
static void attention_back(machine & m, const ggml_vera_attention & with, ggml_tensor * const * src,
                           ggml_tensor * dst) {
    int64_t              tiles;
    const int64_t        tokens = dst->ne[1];
    const attention_pack a      = pack_of(m, with, src[1], src[2], src[3], tiles);
    float *logs = (float *) m.scratch(2 * a.heads * tokens * sizeof(float)), *deltas = logs + a.heads * tokens;
    with_dim(a.dim, [&](auto d) {
        LAUNCH(m, attend_back_queries<d.value>, dim3((unsigned) tiles, (unsigned) a.heads), ATTENTION_THREADS,
               shared_bytes(d.value, 4), a, view(src[0]), view(dst), logs, deltas, tokens);
        LAUNCH(m, attend_back_keys<d.value>, dim3((unsigned) tiles, (unsigned) a.kv_heads), ATTENTION_THREADS,
               shared_bytes(d.value, 4), a, view(src[0]), view(dst), (const float *) logs, (const float *) deltas,
               tokens);
    });
}

// What a launch of attend_part covers: so many rows, whose parts lie in memory at once, and parts of the keys.
enum { ROWS_AT_ONCE = 64, MOST_PARTS = 16 };

template <typename T> static void attend_cached(machine & m, cache_pack a, int64_t n, matrix out) {
    LAUNCH(m, append<T>, dim3((unsigned) a.kv_heads, (unsigned) n), THREADS, 0, a);
    const auto attend = [&](auto g) {
        constexpr int G    = decltype(g)::value;
        const int     sets = (int) pieces(a.heads / a.kv_heads, G) * a.kv_heads;
        const int64_t each = std::max<int64_t>(1, std::min<int64_t>(ROWS_AT_ONCE, 65535 / sets));
        a.results          = scratch_floats(m, std::min(each, n) * a.heads * a.parts * (a.padded + PART_HEAD));
        for (int64_t r = 0; r < n; r += each) {
            const unsigned rows   = (unsigned) std::min(each, n - r);
            const size_t   shared = (G * (a.padded + THREADS) + 4 * THREADS) * sizeof(float);
            LAUNCH(m, (attend_part<T, G>), dim3((unsigned) a.parts, rows * sets), THREADS, shared, a, r);
            LAUNCH(m, join_parts, dim3((unsigned) a.heads, rows), THREADS, 0, a, out, r);
        }
    };
    switch (a.heads / a.kv_heads) {
    case 1: return attend(std::integral_constant<int, 1>());
    case 2: return attend(std::integral_constant<int, 2>());
    default: return attend(std::integral_constant<int, 4>());
    }
}

// Sources: qkv, keys, values, rows, sinks or NULL.
static void attention_cached(machine & m, const ggml_vera_attention & with, ggml_tensor * const * src,
                             ggml_tensor * dst) {
    const ggml_tensor *qkv = src[0], *keys = src[1];
    const int          dim    = (int) (qkv->ne[0] / (with.heads + 2 * with.kv_heads)),
                       padded = (int) pieces(dim, KEY_BLOCK) * KEY_BLOCK;
    const int64_t      room = keys->ne[0] / padded, part = pieces(pieces(room, MOST_PARTS), THREADS) * THREADS;
    const cache_pack   a = { view(qkv),
                             (char *) keys->data,
                             (char *) src[2]->data,
                             keys->ne[0],
                             { (const int32_t *) src[3]->data },
                             with.heads,
                             with.kv_heads,
                             dim,
                             padded,
                             with.window > 0 ? with.window : INT_MAX,
                             (int) part,
                             (int) pieces(room, part),
                             with.scale,
                             with.cap,
                             float_data(src[4]),
                             nullptr };
    if ((int) keys->type == F32) {
        attend_cached<float>(m, a, qkv->ne[1], view(dst));
    } else {
        attend_cached<uint16_t>(m, a, qkv->ne[1], view(dst));
    }
}

// Sources: x or dy, w, segments.
static void convolution(machine & m, ggml_tensor * const * src, ggml_tensor * dst, bool back) {
    const ggml_tensor *x = src[0], *w = src[1];
    const dim3         grid((unsigned) pieces(x->ne[0], THREADS), (unsigned) x->ne[1]);
    const segment *    segments = (const segment *) src[2]->data;
    if (back) {
        LAUNCH(m, convolve_back, grid, THREADS, 0, view(x), view(w), segments, (int) src[2]->ne[1], view(dst), x->ne[0],
               (int) w->ne[0]);
    } else {
        LAUNCH(m, convolve, grid, THREADS, 0, view(x), view(w), segments, view(dst), x->ne[0], (int) w->ne[0]);
    }
}

// Sources: x, w, state, rows.
static void convolution_cached(machine & m, ggml_tensor * const * src, ggml_tensor * dst) {
    const ggml_tensor *x = src[0], *w = src[1], *state = src[2];
    const dim3         grid((unsigned) pieces(x->ne[0], THREADS), (unsigned) x->ne[1]);
    const places       rows = { (const int32_t *) src[3]->data };
    LAUNCH(m, convolve_on, grid, THREADS, 0, view(x), view(w), view(state), rows, view(dst), x->ne[0], (int) w->ne[0]);
    LAUNCH(m, keep_last, grid, THREADS, 0, view(x), view(state), rows, x->ne[1], x->ne[0], (int) w->ne[0]);
}

// Sources: qkv, a, b, decay, bias, states, rows.
static void delta_net_cached(machine & m, const ggml_vera_delta_net & with, ggml_tensor * const * src,
                             ggml_tensor * dst) {
    LAUNCH(m, delta_on, dim3((unsigned) with.values, (unsigned) dst->ne[1]), THREADS, 2 * with.dim_k * sizeof(float),
           view(src[0]), view(src[1]), view(src[2]), float_data(src[3]), float_data(src[4]), view(src[5]),
           places{ (const int32_t *) src[6]->data }, view(dst), dst->ne[1], with);
}

// For rows of n numbers.
static head_norms norms_of(const ggml_vera_norm_heads & with, const ggml_tensor * q, const ggml_tensor * k, int64_t n) {
    return { float_data(q), float_data(k), q->ne[0], k->ne[0], n / (with.heads + 2 * with.kv_heads),
             with.heads,    with.kv_heads };
}

static int64_t head_dim(const ggml_vera_attention & with, const ggml_tensor * qkv) {
    return qkv->ne[0] / (with.heads + 2 * with.kv_heads);
}

// Whether there is a kernel for such a node. What is not listed has none.
static bool supported(ggml_vera_operation op, const ggml_vera_parameters & with, ggml_tensor * const * src) {
    switch (op) {
    case GGML_VERA_LINEAR: return with.linear.way != GGML_VERA_INTERLEAVED;
    case GGML_VERA_ATTENTION:
    case GGML_VERA_ATTENTION_BACK: {
        const int first = op == GGML_VERA_ATTENTION_BACK;  // behind dout
        return head_dim(with.attention, src[first]) <= MOST_DIM;
    }
    case GGML_VERA_ATTENTION_CACHED: return head_dim(with.attention, src[0]) <= 4 * THREADS;
    case GGML_VERA_ACTIVATE:
    case GGML_VERA_ACTIVATE_BACK:
    case GGML_VERA_GATED:
    case GGML_VERA_GATED_BACK: return with.activation.act < GGML_VERA_ACTIVATIONS;
    case GGML_VERA_CONVOLUTION:
    case GGML_VERA_CONVOLUTION_BACK:
    case GGML_VERA_CONVOLUTION_CACHED:
    case GGML_VERA_DELTA_NET_CACHED:
    case GGML_VERA_GATED_NORM:
    case GGML_VERA_GATED_NORM_BACK:
    case GGML_VERA_LINEAR_BACK:
    case GGML_VERA_WEIGHT_GRADIENT:
    case GGML_VERA_MERGE:
    case GGML_VERA_MERGED_GRADIENT:
    case GGML_VERA_FACTORED_GRADIENT:
    case GGML_VERA_NORM:
    case GGML_VERA_NORM_BACK:
    case GGML_VERA_LAYER_NORM:
    case GGML_VERA_LAYER_NORM_BACK:
    case GGML_VERA_NORM_HEADS:
    case GGML_VERA_NORM_HEADS_BACK:
    case GGML_VERA_ROTATE:
    case GGML_VERA_CONVERT:
    case GGML_VERA_CAPPED:
    case GGML_VERA_CROSS_ENTROPY:
    case GGML_VERA_CROSS_ENTROPY_BACK: return true;
    default: return false;
    }
}

// Computes a node that is supported.
static void compute(machine & m, ggml_vera_operation op, const ggml_vera_parameters & with, ggml_tensor * const * src,
                    ggml_tensor * dst) {
    const int64_t  n    = dst->ne[0];
    const unsigned rows = (unsigned) dst->ne[1];
    const matrix   to   = view(dst);
    // one block a row, or one thread an element
    const dim3 by_rows(rows), by_elements((unsigned) pieces(n, THREADS), rows);
    switch (op) {
    case GGML_VERA_LINEAR:
        if (with.linear.way == GGML_VERA_BYTES &&
            rounded_product(m, src[0], src[1], float_data(src[3]), float_data(src[2]), src[4] ? view(src[4]) : none(),
                            to)) {
            return;
        }
        return product(m, src[0], src[1], float_data(src[3]), float_data(src[2]), src[4], dst, false);
    case GGML_VERA_LINEAR_BACK:
        return product(m, src[0], src[1], float_data(src[2]), float_data(src[3]), src[4], dst, true);
    case GGML_VERA_WEIGHT_GRADIENT: return weight_gradient(m, src[0], src[1], dst);
    case GGML_VERA_MERGE: return merge(m, src, dst);
    case GGML_VERA_MERGED_GRADIENT: return merged_gradient(m, src, dst);
    case GGML_VERA_FACTORED_GRADIENT: return factored_gradient(m, src, dst);
    case GGML_VERA_ATTENTION: return attention(m, with.attention, src, dst);
    case GGML_VERA_ATTENTION_BACK: return attention_back(m, with.attention, src, dst);
    case GGML_VERA_ATTENTION_CACHED: return attention_cached(m, with.attention, src, dst);
    case GGML_VERA_CONVOLUTION: return convolution(m, src, dst, false);
    case GGML_VERA_CONVOLUTION_BACK: return convolution(m, src, dst, true);
    case GGML_VERA_CONVOLUTION_CACHED: return convolution_cached(m, src, dst);
    case GGML_VERA_GATED_NORM_BACK: {
        const int64_t dim = src[3]->ne[0], half = src[1]->ne[0];
        LAUNCH(m, gated_norm_back, dim3((unsigned) (half / dim), rows), THREADS, 0, view(src[0]), view(src[1]),
               view(src[2]), float_data(src[3]), to, half, dim, with.norm.eps);
        return;
    }
    case GGML_VERA_DELTA_NET_CACHED: return delta_net_cached(m, with.delta_net, src, dst);
    case GGML_VERA_GATED_NORM: {
        const int64_t dim = src[2]->ne[0];
        LAUNCH(m, gated_norm, dim3((unsigned) (n / dim), rows), THREADS, 0, view(src[0]), view(src[1]),
               float_data(src[2]), to, dim, with.norm.eps);
        return;
    }
    case GGML_VERA_NORM:
        LAUNCH(m, norm, by_rows, THREADS, 0, view(src[0]), float_data(src[1]), to, n, with.norm.eps);
        return;
    case GGML_VERA_NORM_BACK:
        LAUNCH(m, norm_back, by_rows, THREADS, 0, view(src[0]), view(src[1]), float_data(src[2]),
               src[3] ? view(src[3]) : none(), to, n, with.norm.eps);
        return;
    case GGML_VERA_LAYER_NORM:
        LAUNCH(m, layer_norm, by_rows, THREADS, 0, view(src[0]), float_data(src[1]), float_data(src[2]), to, n,
               with.norm.eps);
        return;
    case GGML_VERA_LAYER_NORM_BACK:
        LAUNCH(m, layer_norm_back, by_rows, THREADS, 0, view(src[0]), view(src[1]), float_data(src[2]),
               src[3] ? view(src[3]) : none(), to, n, with.norm.eps);
        return;
    case GGML_VERA_NORM_HEADS: {
        const head_norms norms = norms_of(with.norm_heads, src[1], src[2], n);
        LAUNCH(m, norm_heads, dim3((unsigned) norms.parts(), rows), THREADS, 0, view(src[0]), norms, to,
               with.norm_heads.eps);
        return;
    }
    case GGML_VERA_NORM_HEADS_BACK: {
        const head_norms norms = norms_of(with.norm_heads, src[2], src[3], n);
        LAUNCH(m, norm_heads_back, dim3((unsigned) norms.parts(), rows), THREADS, 0, view(src[0]), view(src[1]), norms,
               to, with.norm_heads.eps);
        return;
    }
    case GGML_VERA_ACTIVATE:
    case GGML_VERA_GATED:
        LAUNCH(m, activated, by_elements, THREADS, 0, view(src[0]), to, n, activation(with.activation.act),
               op == GGML_VERA_GATED);
        return;
    case GGML_VERA_ACTIVATE_BACK:
    case GGML_VERA_GATED_BACK:
        LAUNCH(m, activated_back, dim3((unsigned) pieces(src[0]->ne[0], THREADS), rows), THREADS, 0, view(src[0]),
               view(src[1]), to, src[0]->ne[0], activation(with.activation.act), op == GGML_VERA_GATED_BACK);
        return;
    case GGML_VERA_ROTATE: {
        const ggml_vera_rotation & r = with.rotation;
        LAUNCH(m, rotate, by_elements, THREADS, 0, view(src[0]), view(src[1]), to, n, src[1]->ne[0], r.heads,
               r.head_dim, r.back ? -1.0f : 1.0f, r.halves);
        return;
    }
    case GGML_VERA_CONVERT: return copied(m, view(src[0]), to, n, dst->ne[1]);
    case GGML_VERA_CAPPED:
        LAUNCH(m, capped, by_elements, THREADS, 0, logits{ view(src[0]), with.cap.cap }, to, n);
        return;
    case GGML_VERA_CROSS_ENTROPY:
        LAUNCH(m, cross_entropy, dim3((unsigned) n), THREADS, 0, logits{ view(src[0]), with.cap.cap },
               (const int32_t *) src[1]->data, (float *) dst->data, src[0]->ne[0]);
        return;
    case GGML_VERA_CROSS_ENTROPY_BACK:
        LAUNCH(m, cross_entropy_back, by_rows, THREADS, 0, logits{ view(src[0]), with.cap.cap },
               (const int32_t *) src[1]->data, to, n);
        return;
    default: return;
    }
}

}  // namespace cuda
}  // namespace vera
