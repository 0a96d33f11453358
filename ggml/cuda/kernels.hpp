// veratune's operations on a graphics processor: the kernels. operations.hpp launches them. CUDA compiles them, or, to
// test them where there is no such processor, the CPU's compiler with emulated.hpp before them.
//
// Activations are float32 or bfloat16; everything but the products is computed in float32. Results have the same bits
// every time: sums have a fixed order, and nothing is added atomically.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "../call.h"

namespace vera {
namespace cuda {

enum { THREADS = 256 };  // in a block, except in attention

// A matrix of float32 or bfloat16, whose rows are `stride` elements apart.
struct matrix {
    char *  data;
    int64_t stride;
    bool    half;

    __host__ __device__ matrix at(int64_t row, int64_t column) const {
        return { data + (row * stride + column) * (half ? 2 : 4), stride, half };
    }

    __device__ static float widened(uint32_t half) {
        const uint32_t bits = half << 16;
        float          x;
        memcpy(&x, &bits, sizeof(x));
        return x;
    }

    // Rounds to nearest, ties to even. A NaN keeps its upper bits, if they are still a NaN.
    __device__ static uint32_t rounded(float x) {
        uint32_t bits;
        memcpy(&bits, &x, sizeof(x));
        if (x != x) {
            return bits & 0x7f0000 ? bits >> 16 : bits >> 16 | 0x40;
        }
        return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    }

    __device__ float get(int64_t r, int64_t i) const {
        return half ? widened(((const uint16_t *) data)[r * stride + i]) : ((const float *) data)[r * stride + i];
    }

    __device__ void put(int64_t r, int64_t i, float x) const {
        if (half) {
            ((uint16_t *) data)[r * stride + i] = (uint16_t) rounded(x);
        } else {
            ((float *) data)[r * stride + i] = x;
        }
    }

    // Whether rows can be read and written four elements at a time.
    __host__ __device__ bool by_fours() const { return stride % 4 == 0 && (uintptr_t) data % (half ? 8 : 16) == 0; }

    // Elements 4 i … 4 i + 3 of a row.
    __device__ float4 get4(int64_t r, int64_t i) const {
        if (!half) {
            return ((const float4 *) data)[r * stride / 4 + i];
        }
        const uint2 v = ((const uint2 *) data)[r * stride / 4 + i];
        return { widened(v.x & 0xffff), widened(v.x >> 16), widened(v.y & 0xffff), widened(v.y >> 16) };
    }

    __device__ void put4(int64_t r, int64_t i, float4 x) const {
        if (half) {
            ((uint2 *) data)[r * stride / 4 + i] = { rounded(x.x) | rounded(x.y) << 16, rounded(x.z) | rounded(x.w)
                                                                                                           << 16 };
        } else {
            ((float4 *) data)[r * stride / 4 + i] = x;
        }
    }
};

// to = from ⊙ by_row ⊙ by_column + acc, for rows of n elements. A scale that is NULL is 1; acc.data may be NULL, or
// that of `to`.
__global__ static void scale(matrix from, matrix to, int64_t n, int64_t rows, const float * by_row,
                             const float * by_column, matrix acc) {
    for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
        for (int64_t i = blockIdx.x * THREADS + threadIdx.x; i < n; i += (int64_t) gridDim.x * THREADS) {
            float x = from.get(r, i);
            x       = by_row ? x * by_row[r] : x;
            x       = by_column ? x * by_column[i] : x;
            to.put(r, i, acc.data ? x + acc.get(r, i) : x);
        }
    }
}

// The same for rows of `fours` times four elements.
__global__ static void scale4(matrix from, matrix to, int64_t fours, int64_t rows, const float * by_row,
                              const float4 * by_column, matrix acc) {
    for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
        for (int64_t i = blockIdx.x * THREADS + threadIdx.x; i < fours; i += (int64_t) gridDim.x * THREADS) {
            float4 x = from.get4(r, i);
            if (by_row) {
                const float by = by_row[r];
                x              = { x.x * by, x.y * by, x.z * by, x.w * by };
            }
            if (by_column) {
                const float4 c = by_column[i];
                x              = { x.x * c.x, x.y * c.y, x.z * c.z, x.w * c.w };
            }
            if (acc.data) {
                const float4 a = acc.get4(r, i);
                x              = { x.x + a.x, x.y + a.y, x.z + a.z, x.w + a.w };
            }
            to.put4(r, i, x);
        }
    }
}

struct plus {
    __device__ float operator()(float a, float b) const { return a + b; }
};

struct greater {
    __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

// Reduces the values of LANES neighbours in a warp; each of them gets the result.
template <int LANES, typename F> __device__ static float over_lanes(float v, F join) {
    for (int k = LANES / 2; k > 0; k /= 2) {
        v = join(v, __shfl_xor_sync(0xffffffff, v, k));
    }
    return v;
}

enum { FEW = 4 };  // columns, at most

// y = diag(by_row) W diag(by_column) x + acc for n columns of x: a warp sums up a row of W, of k elements. weights(r,
// i, at, w) gives two elements of row r and their columns, for i from 0 to k/2 − 1.
template <typename W> __device__ static void few_columns(W weights, int64_t out, int64_t k, matrix x, int n,
                                                         const float * by_row, const float * by_column, matrix acc,
                                                         matrix y) {
    const int64_t r         = blockIdx.x * (int64_t) (THREADS / 32) + threadIdx.x / 32;
    const int     lane      = threadIdx.x % 32;
    float         sums[FEW] = {};
    for (int64_t i = lane; r < out && i < k / 2; i += 32) {
        int64_t at[2];
        float   w[2];
        weights(r, i, at, w);
        for (int p = 0; p < 2; p++) {
            w[p] *= by_column ? by_column[at[p]] : 1;
            for (int c = 0; c < FEW; c++) {
                sums[c] += c < n ? w[p] * x.get(c, at[p]) : 0;
            }
        }
    }
    for (int c = 0; c < FEW; c++) {
        const float sum = over_lanes<32>(sums[c], plus());
        if (lane == 0 && r < out && c < n) {
            const float v = by_row ? sum * by_row[r] : sum;
            y.put(c, r, acc.data ? v + acc.get(c, r) : v);
        }
    }
}

// few_columns for a matrix of float32 or bfloat16.
__global__ static void few(matrix w, int64_t out, int64_t k, matrix x, int n, const float * by_row,
                           const float * by_column, matrix acc, matrix y) {
    few_columns(
        [&](int64_t r, int64_t i, int64_t at[2], float v[2]) {
            for (int p = 0; p < 2; p++) {
                at[p] = 2 * i + p;
                v[p]  = w.get(r, at[p]);
            }
        },
        out, k, x, n, by_row, by_column, acc, y);
}

// Copies the rows that labels name, of `bytes` bytes, side by side. They are `stride` apart in `from`.
__global__ static void gather(const char * from, int64_t stride, const int32_t * labels, char * to, int64_t bytes) {
    const char * row = from + labels[blockIdx.x] * stride;
    for (int64_t i = threadIdx.x; i < bytes; i += THREADS) {
        to[blockIdx.x * bytes + i] = row[i];
    }
}

// Reduces the values of all threads; each of them gets the result.
template <typename F> __device__ static float over_block(float v, F join) {
    __shared__ float parts[THREADS / 32];
    v = over_lanes<32>(v, join);
    if (threadIdx.x % 32 == 0) {
        parts[threadIdx.x / 32] = v;
    }
    __syncthreads();
    v = parts[0];
    for (int i = 1; i < THREADS / 32; i++) {
        v = join(v, parts[i]);
    }
    __syncthreads();
    return v;
}

__device__ static float block_sum(float v) { return over_block(v, plus()); }

__device__ static float inverse_rms(matrix x, int64_t r, int64_t n, float eps) {
    float squares = 0;
    for (int64_t i = threadIdx.x; i < n; i += THREADS) {
        squares += x.get(r, i) * x.get(r, i);
    }
    return 1 / sqrtf(block_sum(squares) / n + eps);
}

// y = x ⊙ w / √(mean(x²) + eps), one block a row.
__global__ static void norm(matrix x, const float * w, matrix y, int64_t n, float eps) {
    const int64_t r = blockIdx.x;
    const float   s = inverse_rms(x, r, n, eps);
    for (int64_t i = threadIdx.x; i < n; i += THREADS) {
        y.put(r, i, x.get(r, i) * s * w[i]);
    }
}

// With s = 1 / √(mean(x²) + eps) and g = dy ⊙ w: dx = s (g − s² mean(x ⊙ g) x), + acc.
__global__ static void norm_back(matrix dy, matrix x, const float * w, matrix acc, matrix dx, int64_t n, float eps) {
    const int64_t r  = blockIdx.x;
    const float   s  = inverse_rms(x, r, n, eps);
    float         xg = 0;
    for (int64_t i = threadIdx.x; i < n; i += THREADS) {
        xg += x.get(r, i) * (dy.get(r, i) * w[i]);
    }
    const float by = block_sum(xg) / n * s * s;
    for (int64_t i = threadIdx.x; i < n; i += THREADS) {
        const float d = s * (dy.get(r, i) * w[i] - by * x.get(r, i));
        dx.put(r, i, acc.data ? acc.get(r, i) + d : d);
    }
}

// The mean of a row and 1 / √(variance + eps).
struct moments {
    float mean, scale;

    __device__ moments(matrix x, int64_t r, int64_t n, float eps) {
        float sum = 0, squares = 0;
        for (int64_t i = threadIdx.x; i < n; i += THREADS) {
            sum += x.get(r, i);
        }
        mean = block_sum(sum) / n;
        for (int64_t i = threadIdx.x; i < n; i += THREADS) {
            const float d = x.get(r, i) - mean;
            squares += d * d;
        }
        scale = 1 / sqrtf(block_sum(squares) / n + eps);
    }
};

// With s = 1 / √(var(x) + eps): y = s (x − mean(x)) ⊙ w + b, one block a row.
__global__ static void layer_norm(matrix x, const float * w, const float * b, matrix y, int64_t n, float eps) {
    const int64_t r = blockIdx.x;
    const moments m(x, r, n, eps);
    for (int64_t i = threadIdx.x; i < n; i += THREADS) {
        y.put(r, i, (x.get(r, i) - m.mean) * m.scale * w[i] + b[i]);
    }
}

// With d = x − mean(x) and g = dy ⊙ w: dx = s (g − mean(g) − s² mean(d ⊙ g) d), + acc.
__global__ static void layer_norm_back(matrix dy, matrix x, const float * w, matrix acc, matrix dx, int64_t n,
                                       float eps) {
    const int64_t r = blockIdx.x;
    const moments m(x, r, n, eps);
    float         all = 0, with = 0;
    for (int64_t i = threadIdx.x; i < n; i += THREADS) {
        const float g = dy.get(r, i) * w[i];
        all += g;
        with += (x.get(r, i) - m.mean) * g;
    }
    const float mean = block_sum(all) / n, by = block_sum(with) / n * m.scale * m.scale;
    for (int64_t i = threadIdx.x; i < n; i += THREADS) {
        const float d = m.scale * (dy.get(r, i) * w[i] - mean - by * (x.get(r, i) - m.mean));
        dx.put(r, i, acc.data ? acc.get(r, i) + d : d);
    }
}

// Which parts of a row [q, k, v] have a norm: each head of q and of k, or q and k as a whole, as the lengths of their
// weights say. The heads of v are copied.
struct head_norms {
    const float *q, *k;
    int64_t      q_size, k_size, dim;
    int          heads, kv_heads;

    __host__ __device__ int64_t of_q() const { return heads * dim / q_size; }

    __host__ __device__ int64_t of_k() const { return kv_heads * dim / k_size; }

    __host__ int64_t parts() const { return of_q() + of_k() + kv_heads; }

    // A part of a row. Without weights it is a head of v.
    struct part {
        const float * w;
        int64_t       first, size;
    };

    __device__ part at(int64_t i) const {
        if (i < of_q()) {
            return { q, i * q_size, q_size };
        }
        i -= of_q();
        if (i < of_k()) {
            return { k, heads * dim + i * k_size, k_size };
        }
        return { nullptr, (heads + kv_heads + i - of_k()) * dim, dim };
    }
};

// One block a part of a row.
__global__ static void norm_heads(matrix x, head_norms norms, matrix y, float eps) {
    const int64_t          r       = blockIdx.y;
    const head_norms::part p       = norms.at(blockIdx.x);
    float                  squares = 0;
    for (int64_t i = threadIdx.x; i < p.size; i += THREADS) {
        squares += x.get(r, p.first + i) * x.get(r, p.first + i);
    }
    const float s = 1 / sqrtf(block_sum(squares) / p.size + eps);
    for (int64_t i = threadIdx.x; i < p.size; i += THREADS) {
        y.put(r, p.first + i, p.w ? x.get(r, p.first + i) * s * p.w[i] : x.get(r, p.first + i));
    }
}

__global__ static void norm_heads_back(matrix dy, matrix x, head_norms norms, matrix dx, float eps) {
    const int64_t          r       = blockIdx.y;
    const head_norms::part p       = norms.at(blockIdx.x);
    float                  squares = 0, xg = 0;
    for (int64_t i = threadIdx.x; p.w && i < p.size; i += THREADS) {
        squares += x.get(r, p.first + i) * x.get(r, p.first + i);
        xg += x.get(r, p.first + i) * (dy.get(r, p.first + i) * p.w[i]);
    }
    const float s = 1 / sqrtf(block_sum(squares) / p.size + eps), by = block_sum(xg) / p.size * s * s;
    for (int64_t i = threadIdx.x; i < p.size; i += THREADS) {
        const float g = dy.get(r, p.first + i);
        dx.put(r, p.first + i, p.w ? s * (g * p.w[i] - by * x.get(r, p.first + i)) : g);
    }
}

// Activations f(x) σ(φ(x)), as bindings/rowwise.go has them, of x = gate(…).
struct activation {
    float linear, cubic;    // φ(x) = x (linear + cubic x²)
    bool  logistic, limit;  // f(x) = 1; gate and up are limited

    enum { LIMIT = 7 };

    __host__ activation(int which)
        : linear(1), cubic(0), logistic(which == GGML_VERA_SIGMOID), limit(which == GGML_VERA_CLAMPED) {
        if (which == GGML_VERA_GELU) {  // 2 √(2/π), and 0.044715 times that
            linear = 1.5957691216057308f;
            cubic  = 0.07135481627159867f;
        } else if (limit) {
            linear = 1.702f;
        }
    }

    // Where cubic is 0 it is left out, since ∞² · 0 is NaN.
    __device__ float phi(float x) const { return cubic == 0 ? linear * x : x * (linear + cubic * (x * x)); }

    __device__ float value(float x) const { return logistic ? 1 : x; }

    __device__ float rise() const { return logistic ? 0 : 1; }

    // f(x) φ′(x).
    __device__ float along(float x) const { return value(x) * (cubic == 0 ? linear : linear + 3 * cubic * (x * x)); }

    // Comparisons that a NaN passes through.
    __device__ float gate(float x) const { return limit && x > LIMIT ? (float) LIMIT : x; }

    __device__ float up(float u) const {
        const float limited = gate(u);
        return limit ? 1 + (limited < -LIMIT ? -(float) LIMIT : limited) : u;
    }

    __device__ float gate_back(float x, float g) const { return limit && x > LIMIT ? 0 : g; }

    __device__ float up_back(float u, float g) const { return limit && u < -LIMIT ? 0 : gate_back(u, g); }
};

// y = act(x), or act(gate) ⊙ up for rows [gate, up] of 2n numbers.
__global__ static void activated(matrix gate_up, matrix y, int64_t n, activation act, bool gated) {
    const int64_t r = blockIdx.y, i = blockIdx.x * (int64_t) THREADS + threadIdx.x;
    if (i < n) {
        const float x = act.gate(gate_up.get(r, i)), v = act.value(x) / (1 + expf(-act.phi(x)));
        y.put(r, i, gated ? v * act.up(gate_up.get(r, n + i)) : v);
    }
}

// With s = σ(φ(x)): act′(x) = s (f′(x) + f(x) φ′(x) (1 − s)); ∂x = dy ⊙ act′(x), or ∂gate = dy ⊙ up ⊙ act′(gate), ∂up =
// dy ⊙ f(gate) ⊙ s, passed on through gate and up.
__global__ static void activated_back(matrix dy, matrix gate_up, matrix d, int64_t n, activation act, bool gated) {
    const int64_t r = blockIdx.y, i = blockIdx.x * (int64_t) THREADS + threadIdx.x;
    if (i < n) {
        const float before = gate_up.get(r, i), x = act.gate(before), s = 1 / (1 + expf(-act.phi(x))),
                    gs = dy.get(r, i) * s, slope = act.rise() + act.along(x) * (1 - s);
        if (!gated) {
            d.put(r, i, act.gate_back(before, gs * slope));
            return;
        }
        const float u = gate_up.get(r, n + i);
        d.put(r, i, act.gate_back(before, gs * act.up(u) * slope));
        d.put(r, n + i, act.up_back(u, gs * act.value(x)));
    }
}

// y = norm(x) ⊙ w ⊙ SiLU(z) for every head of `dim` numbers, one block a head of a row.
__global__ static void gated_norm(matrix x, matrix z, const float * w, matrix y, int64_t dim, float eps) {
    const int64_t r = blockIdx.y, first = blockIdx.x * dim;
    float         squares = 0;
    for (int64_t i = threadIdx.x; i < dim; i += THREADS) {
        squares += x.get(r, first + i) * x.get(r, first + i);
    }
    const float s = 1 / sqrtf(block_sum(squares) / dim + eps);
    for (int64_t i = threadIdx.x; i < dim; i += THREADS) {
        const float v = z.get(r, first + i);
        y.put(r, first + i, x.get(r, first + i) * s * w[i] * (v / (1 + expf(-v))));
    }
}

// With v = z, σ = σ(v), g = dy ⊙ SiLU(z) and n = norm(x) ⊙ w: ∂x is that of the norm for g, ∂z = dy ⊙ n ⊙ σ (1 + v (1 −
// σ)). They lie side by side in d.
__global__ static void gated_norm_back(matrix dy, matrix x, matrix z, const float * w, matrix d, int64_t n, int64_t dim,
                                       float eps) {
    const int64_t r = blockIdx.y, first = blockIdx.x * dim;
    const auto    gate    = [&](int64_t i) { return 1 / (1 + expf(-z.get(r, first + i))); };
    const auto    g       = [&](int64_t i) { return dy.get(r, first + i) * z.get(r, first + i) * gate(i) * w[i]; };
    float         squares = 0, xg = 0;
    for (int64_t i = threadIdx.x; i < dim; i += THREADS) {
        const float v = x.get(r, first + i);
        squares += v * v;
        xg += v * g(i);
    }
    const float s = 1 / sqrtf(block_sum(squares) / dim + eps), by = block_sum(xg) / dim * s * s;
    for (int64_t i = threadIdx.x; i < dim; i += THREADS) {
        const float v = z.get(r, first + i), normed = x.get(r, first + i) * s * w[i];
        d.put(r, first + i, s * (g(i) - by * x.get(r, first + i)));
        d.put(r, n + first + i, dy.get(r, first + i) * normed * gate(i) * (1 + v * (1 - gate(i))));
    }
}

// A causal convolution of every column along the rows of each text: y[r] = Σ w[taps − 1 − i] ⊙ x[the row i before r].
__global__ static void convolve(matrix x, matrix w, const segment * segments, matrix y, int64_t n, int taps) {
    const int64_t r = blockIdx.y, i = blockIdx.x * (int64_t) THREADS + threadIdx.x;
    if (i >= n) {
        return;
    }
    int run = 0;
    while (r >= segments[run].first + segments[run].length) {
        run++;
    }
    int   place = (int) r - segments[run].first;
    float sum   = 0;
    for (int back = 0; back < taps; back++, place--) {
        while (place < 0 && (run = segments[run].parent) >= 0) {
            place += segments[run].length;
        }
        if (run < 0) {
            break;
        }
        sum += w.get(i, taps - 1 - back) * x.get(segments[run].first + place, i);
    }
    y.put(r, i, sum);
}

// Its gradient: the rows that have r so many before them are in r's run, and in those that descend from it.
__global__ static void convolve_back(matrix dy, matrix w, const segment * segments, int count, matrix dx, int64_t n,
                                     int taps) {
    const int64_t r = blockIdx.y, i = blockIdx.x * (int64_t) THREADS + threadIdx.x;
    if (i >= n) {
        return;
    }
    int own = 0;
    while (r >= segments[own].first + segments[own].length) {
        own++;
    }
    const int position = segments[own].past + (int) r - segments[own].first;
    float     sum      = 0;
    for (int run = own; run < count; run++) {
        int ancestor = run;
        while (ancestor > own) {
            ancestor = segments[ancestor].parent;
        }
        if (ancestor != own) {
            continue;
        }
        for (int back = max(0, segments[run].past - position); back < taps; back++) {
            const int place = position + back - segments[run].past;
            if (place >= segments[run].length) {
                break;
            }
            sum += w.get(i, taps - 1 - back) * dy.get(segments[run].first + place, i);
        }
    }
    dx.put(r, i, sum);
}

// Rotates pairs (a, b) of the first `dims` elements of each of the first heads: (a cos − b sin, a sin + b cos), or with
// way = −1 by the negative angle. Copies everything else of the n elements of a row. The table has (cos, sin) for each
// pair: neighbours, or the same elements of the two halves.
__global__ static void rotate(matrix x, matrix table, matrix y, int64_t n, int64_t dims, int heads, int dim, float way,
                              bool halves) {
    const int64_t r = blockIdx.y, i = blockIdx.x * (int64_t) THREADS + threadIdx.x;
    if (i >= n) {
        return;
    }
    const int64_t place = i % dim;
    if (i / dim >= heads || place >= dims) {
        y.put(r, i, x.get(r, i));
        return;
    }
    const int64_t half = dims / 2, apart = halves ? half : 1, pair = halves ? place % half : place / 2;
    const bool    first = halves ? place < half : place % 2 == 0;
    const float   cos = table.get(r, 2 * pair), sin = way * table.get(r, 2 * pair + 1);
    y.put(r, i, first ? x.get(r, i) * cos - x.get(r, i + apart) * sin : x.get(r, i) * cos + x.get(r, i - apart) * sin);
}

// Rows of logits, float32, capped if cap is not 0.
struct logits {
    matrix x;
    float  cap;

    __device__ float get(int64_t r, int64_t i) const { return cap == 0 ? x.get(r, i) : cap * tanhf(x.get(r, i) / cap); }

    // The derivative at a capped value c: tanh′ = 1 − tanh².
    __device__ float slope(float c) const { return cap == 0 ? 1 : 1 - c / cap * (c / cap); }
};

__global__ static void capped(logits x, matrix y, int64_t n) {
    const int64_t r = blockIdx.y, i = blockIdx.x * (int64_t) THREADS + threadIdx.x;
    if (i < n) {
        y.put(r, i, x.get(r, i));
    }
}

// The normaliser of a row of logits: softmax = exp(logit − top) / total.
struct normalizer {
    float top;    // the largest logit; 0 if that is infinite, since ∞ − ∞ is NaN
    float total;  // Σ exp(logit − top); NaN if a logit is NaN

    __device__ normalizer(logits x, int64_t r, int64_t n) : top(-INFINITY), total(0) {
        for (int64_t i = threadIdx.x; i < n; i += THREADS) {
            top = fmaxf(top, x.get(r, i));
        }
        top = over_block(top, greater());
        top = fabsf(top) < INFINITY ? top : 0;
        for (int64_t i = threadIdx.x; i < n; i += THREADS) {
            total += expf(x.get(r, i) - top);
        }
        total = block_sum(total);
    }
};

// −log softmax(x)[label] of each row of x.
__global__ static void cross_entropy(logits x, const int32_t * labels, float * to, int64_t n) {
    const int64_t    r = blockIdx.x;
    const normalizer z(x, r, n);
    if (threadIdx.x == 0) {
        to[r] = logf(z.total) + (z.top - x.get(r, labels[r]));
    }
}

// softmax(x) − onehot(label), times the slope.
__global__ static void cross_entropy_back(logits x, const int32_t * labels, matrix y, int64_t n) {
    const int64_t    r = blockIdx.x;
    const normalizer z(x, r, n);
    for (int64_t i = threadIdx.x; i < n; i += THREADS) {
        const float c = x.get(r, i);
        y.put(r, i, (expf(c - z.top) / z.total - (i == labels[r])) * x.slope(c));
    }
}

// ∂b = E d for E = B ⊙ T, one block a row.
__global__ static void grad_b(matrix b, const float * t, const float * d, float * to, int64_t rank) {
    const int64_t o = blockIdx.x;
    float         s = 0;
    for (int64_t i = threadIdx.x; i < rank; i += THREADS) {
        s += b.get(o, i) * t[o * rank + i] * d[i];
    }
    s = block_sum(s);
    if (threadIdx.x == 0) {
        to[o] = s;
    }
}

enum { GRAD_ROWS = 64 };

// A part of ∂d = Eᵀ b for each element of d: the sum over GRAD_ROWS rows.
__global__ static void grad_d_parts(matrix rows, const float * t, const float * b, float * parts, int64_t rank,
                                    int64_t out) {
    const int64_t i = blockIdx.x * (int64_t) THREADS + threadIdx.x, first = blockIdx.y * (int64_t) GRAD_ROWS;
    if (i < rank) {
        float s = 0;
        for (int64_t o = first; o < out && o < first + GRAD_ROWS; o++) {
            s += rows.get(o, i) * t[o * rank + i] * b[o];
        }
        parts[blockIdx.y * rank + i] = s;
    }
}

// Adds up the parts of each of n columns.
__global__ static void add_parts(const float * parts, int64_t count, float * to, int64_t n) {
    const int64_t i = blockIdx.x * (int64_t) THREADS + threadIdx.x;
    if (i < n) {
        float s = 0;
        for (int64_t p = 0; p < count; p++) {
            s += parts[p * n + i];
        }
        to[i] = s;
    }
}

}  // namespace cuda
}  // namespace vera
