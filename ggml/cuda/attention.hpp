// Attention of packed samples, in float32: tiles of TILE queries meet tiles of TILE keys in shared memory, and the
// softmax is built up along the way (Dao et al., arXiv 2205.14135). A block computes one tile of one head. D is the
// length of a head, padded to what kernels are compiled for. Each of a block's threads has 4 rows of a product of two
// tiles, and every sixteenth of its columns.
//
// Memory is read once for each tile of queries (K and V), and backward also once for each tile of keys (Q and dout);
// both stay in the L2 cache.
#pragma once

#include "kernels.hpp"

namespace vera {
namespace cuda {

enum { TILE = 32, ATTENTION_THREADS = 128, LANES16 = 16, SCORES = TILE * (TILE + 1) };

// The tile that a block computes.
struct place {
    int32_t segment, start;  // start: its first row in the segment; segment −1: no tile
};

struct attention_pack {
    matrix          qkv;
    int             heads, kv_heads, dim, window;  // window: INT_MAX for none
    float           scale, cap;                    // cap: 0 for none
    const float *   sinks;                         // of each head, or NULL
    const segment * segments;
    int             count;
    const place *   places;

    __device__ int key(int kv) const { return (heads + kv) * dim; }

    __device__ int value(int kv) const { return (heads + kv_heads + kv) * dim; }

    __device__ float sink(int head) const { return sinks ? sinks[head] : -INFINITY; }

    // The score of a product, if a query sees the key that is so many tokens before it, else −∞.
    __device__ float score(float product, int distance) const {
        if (distance < 0 || distance >= window) {
            return -INFINITY;
        }
        return cap != 0 ? cap * tanhf(product * scale / cap) : product * scale;
    }

    // The derivative of a score by the score before the cap.
    __device__ float slope(float score) const {
        const float t = cap != 0 && score != -INFINITY ? score / cap : 0;
        return 1 - t * t;
    }
};

// Lists the tiles of all segments. One block.
__global__ static void find_places(const segment * segments, int count, place * places, int most) {
    for (int i = threadIdx.x; i < most; i += THREADS) {
        places[i] = { -1, 0 };
    }
    __syncthreads();
    for (int s = threadIdx.x; s < count; s += THREADS) {
        int at = 0;
        for (int before = 0; before < s; before++) {
            at += (segments[before].length + TILE - 1) / TILE;
        }
        for (int start = 0; start < segments[s].length; start += TILE) {
            places[at++] = { s, start };
        }
    }
}

// Copies a tile: `rows` rows of m from `first` on, and of each `dim` elements from `column` on, padded with zeros.
template <int D> __device__ static void fetch(float * tile, matrix m, int64_t first, int rows, int64_t column,
                                              int dim) {
    for (int i = threadIdx.x; i < TILE * D; i += ATTENTION_THREADS) {
        const int r = i / D, c = i % D;
        tile[r * (D + 4) + c] = r < rows && c < dim ? m.get(first + r, column + c) : 0;
    }
}

// This thread's part of a bᵀ: rows 4y … 4y + 3 and columns x, x + 16.
template <int D> __device__ static void products(const float * a, const float * b, float s[4][2]) {
    const int x = threadIdx.x % LANES16, y = threadIdx.x / LANES16;
    for (int i = 0; i < 4; i++) {
        s[i][0] = s[i][1] = 0;
    }
    for (int k = 0; k < D; k += 4) {
        float4 v[2];
        for (int j = 0; j < 2; j++) {
            v[j] = *(const float4 *) (b + (x + LANES16 * j) * (D + 4) + k);
        }
        for (int i = 0; i < 4; i++) {
            const float4 u = *(const float4 *) (a + (4 * y + i) * (D + 4) + k);
            for (int j = 0; j < 2; j++) {
                s[i][j] += u.x * v[j].x + u.y * v[j].y + u.z * v[j].z + u.w * v[j].w;
            }
        }
    }
}

// Stores this thread's part of a product into a tile of scores. Only the sixteen threads that share its rows read them.
__device__ static void share(float * scores, const float s[4][2]) {
    const int x = threadIdx.x % LANES16, y = threadIdx.x / LANES16;
    __syncwarp();
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 2; j++) {
            scores[(4 * y + i) * (TILE + 1) + x + LANES16 * j] = s[i][j];
        }
    }
    __syncwarp();
}

// sums += scores · b: rows 4y … 4y + 3, and of the columns x, x + 16, …
template <int D> __device__ static void add_products(const float * scores, const float * b,
                                                     float sums[4][D / LANES16]) {
    const int x = threadIdx.x % LANES16, y = threadIdx.x / LANES16;
    for (int k = 0; k < TILE; k++) {
        float w[4];
        for (int i = 0; i < 4; i++) {
            w[i] = scores[(4 * y + i) * (TILE + 1) + k];
        }
        for (int j = 0; j < D / LANES16; j++) {
            const float v = b[k * (D + 4) + x + LANES16 * j];
            for (int i = 0; i < 4; i++) {
                sums[i][j] += w[i] * v;
            }
        }
    }
}

template <int D> __device__ static void store(const float sums[4][D / LANES16], const float by[4], matrix to,
                                              int64_t first, int rows, int64_t column, int dim) {
    const int x = threadIdx.x % LANES16, y = threadIdx.x / LANES16;
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < D / LANES16; j++) {
            if (4 * y + i < rows && x + LANES16 * j < dim) {
                to.put(first + 4 * y + i, column + x + LANES16 * j, sums[i][j] * by[i]);
            }
        }
    }
}

__device__ static float row_sum(float v) { return over_lanes<LANES16>(v, plus()); }

__device__ static float row_max(float v) { return over_lanes<LANES16>(v, greater()); }

// The softmax of four rows, one tile after the other. It begins with the sink: −∞ for none.
struct softmax {
    float top[4], total[4];

    __device__ softmax(float sink) {
        for (int i = 0; i < 4; i++) {
            top[i]   = sink;
            total[i] = sink == -INFINITY ? 0 : 1;
        }
    }

    // Adds scores, −∞ where a key is not seen. They become exp(score − top); older sums have to be multiplied by
    // `older`.
    __device__ void add(float s[4][2], float older[4]) {
        for (int i = 0; i < 4; i++) {
            const float next = fmaxf(top[i], row_max(fmaxf(s[i][0], s[i][1]))), by = next == -INFINITY ? 0 : next;
            older[i] = expf(top[i] - by);
            s[i][0]  = expf(s[i][0] - by);
            s[i][1]  = expf(s[i][1] - by);
            total[i] = total[i] * older[i] + row_sum(s[i][0] + s[i][1]);
            top[i]   = next;
        }
    }
};

// Calls f(first key, count, distance) for every tile of keys that a tile of queries sees: of its own segment, where a
// query sees those up to itself, and of its ancestors. The first query is `distance` tokens behind the first key.
template <typename F> __device__ static void each_keys(const attention_pack & a, place p, int rows, F f) {
    const int query = a.segments[p.segment].past + p.start;
    for (int s = p.segment; s >= 0; s = a.segments[s].parent) {
        const segment g    = a.segments[s];
        const int     keys = s == p.segment ? p.start + rows : g.length;
        for (int k = max(0, query + 1 - a.window - g.past); k < keys; k += TILE) {
            f((int64_t) g.first + k, min((int) TILE, keys - k), query - g.past - k);
        }
    }
}

// Scores of a tile of keys, with −∞ where the query of a row does not see the key of a column.
__device__ static void mask(const attention_pack & a, float s[4][2], int keys, int by) {
    const int x = threadIdx.x % LANES16, y = threadIdx.x / LANES16;
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 2; j++) {
            const int k = x + LANES16 * j;
            s[i][j]     = k < keys ? a.score(s[i][j], by + 4 * y + i - k) : -INFINITY;
        }
    }
}

template <int D> __global__ static void attend(attention_pack a, matrix out) {
    DYNAMIC_SHARED(float, memory);
    float *     q = memory, *k = q + TILE * (D + 4), *v = k + TILE * (D + 4), *scores = v + TILE * (D + 4);
    const place p = a.places[blockIdx.x];
    if (p.segment < 0) {
        return;
    }
    const int     h = blockIdx.y, kv = h / (a.heads / a.kv_heads),
                  rows  = min((int) TILE, a.segments[p.segment].length - p.start);
    const int64_t first = (int64_t) a.segments[p.segment].first + p.start;
    fetch<D>(q, a.qkv, first, rows, h * a.dim, a.dim);
    softmax z(a.sink(h));
    float   sums[4][D / LANES16] = {};
    each_keys(a, p, rows, [&](int64_t key, int n, int by) {
        __syncthreads();
        fetch<D>(k, a.qkv, key, n, a.key(kv), a.dim);
        fetch<D>(v, a.qkv, key, n, a.value(kv), a.dim);
        __syncthreads();
        float s[4][2], older[4];
        products<D>(q, k, s);
        mask(a, s, n, by);
        z.add(s, older);
        for (int i = 0; i < 4; i++) {
            for (int j = 0; j < D / LANES16; j++) {
                sums[i][j] *= older[i];
            }
        }
        share(scores, s);
        add_products<D>(scores, v, sums);
    });
    float by[4];
    for (int i = 0; i < 4; i++) {
        by[i] = 1 / z.total[i];
    }
    store<D>(sums, by, out, first, rows, h * a.dim, a.dim);
}

// The gradient of the queries: ∂Q = D K with D = scale · P ⊙ (g Vᵀ − δ), times the slope of capped scores, and δ =
// rowsum(P ⊙ g Vᵀ), for the gradient g = dout. Stores what the keys need, as [rows] of each head: log Σ exp(score),
// from which P is computed again, and δ.
template <int D> __global__ static void attend_back_queries(attention_pack a, matrix dout, matrix dqkv, float * logs,
                                                            float * deltas, int64_t tokens) {
    DYNAMIC_SHARED(float, memory);
    float *q = memory, *g = q + TILE * (D + 4), *k = g + TILE * (D + 4), *v = k + TILE * (D + 4),
          *scores = v + TILE * (D + 4);
    const place p = a.places[blockIdx.x];
    if (p.segment < 0) {
        return;
    }
    const int     h = blockIdx.y, kv = h / (a.heads / a.kv_heads),
                  rows = min((int) TILE, a.segments[p.segment].length - p.start);
    const int     x = threadIdx.x % LANES16, y = threadIdx.x / LANES16;
    const int64_t first = (int64_t) a.segments[p.segment].first + p.start;
    fetch<D>(q, a.qkv, first, rows, h * a.dim, a.dim);
    fetch<D>(g, dout, first, rows, h * a.dim, a.dim);
    softmax    z(a.sink(h));
    float      delta[4] = {}, log[4];
    float      s[4][2], dp[4][2], older[4];
    const auto meet = [&](int64_t key, int n, int by) {
        __syncthreads();
        fetch<D>(k, a.qkv, key, n, a.key(kv), a.dim);
        fetch<D>(v, a.qkv, key, n, a.value(kv), a.dim);
        __syncthreads();
        products<D>(q, k, s);
        mask(a, s, n, by);
        products<D>(g, v, dp);
    };
    each_keys(a, p, rows, [&](int64_t key, int n, int by) {
        meet(key, n, by);
        z.add(s, older);
        for (int i = 0; i < 4; i++) {
            delta[i] = delta[i] * older[i] + row_sum(s[i][0] * dp[i][0] + s[i][1] * dp[i][1]);
        }
    });
    for (int i = 0; i < 4; i++) {
        log[i]   = z.top[i] + logf(z.total[i]);
        delta[i] = delta[i] / z.total[i];
        if (x == 0 && 4 * y + i < rows) {
            logs[h * tokens + first + 4 * y + i]   = log[i];
            deltas[h * tokens + first + 4 * y + i] = delta[i];
        }
    }
    float sums[4][D / LANES16] = {};
    each_keys(a, p, rows, [&](int64_t key, int n, int by) {
        meet(key, n, by);
        for (int i = 0; i < 4; i++) {
            for (int j = 0; j < 2; j++) {
                s[i][j] = expf(s[i][j] - log[i]) * (dp[i][j] - delta[i]) * a.slope(s[i][j]);
            }
        }
        share(scores, s);
        add_products<D>(scores, k, sums);
    });
    const float by[4] = { a.scale, a.scale, a.scale, a.scale };
    store<D>(sums, by, dqkv, first, rows, h * a.dim, a.dim);
}

// The gradients of the keys and values: ∂K = Dᵀ Q and ∂V = Pᵀ g. A tile of keys meets all queries that see it, of all
// heads that share it.
template <int D> __global__ static void attend_back_keys(attention_pack a, matrix dout, matrix dqkv, const float * logs,
                                                         const float * deltas, int64_t tokens) {
    DYNAMIC_SHARED(float, memory);
    float *k = memory, *v = k + TILE * (D + 4), *q = v + TILE * (D + 4), *g = q + TILE * (D + 4),
          *scores = g + TILE * (D + 4);
    const place p = a.places[blockIdx.x];
    if (p.segment < 0) {
        return;
    }
    const int     kv = blockIdx.y, shared = a.heads / a.kv_heads,
                  rows = min((int) TILE, a.segments[p.segment].length - p.start);
    const int     x = threadIdx.x % LANES16, y = threadIdx.x / LANES16;
    const int64_t first = (int64_t) a.segments[p.segment].first + p.start;
    fetch<D>(k, a.qkv, first, rows, a.key(kv), a.dim);
    fetch<D>(v, a.qkv, first, rows, a.value(kv), a.dim);
    float dk[4][D / LANES16] = {}, dv[4][D / LANES16] = {};
    for (int r = p.segment; r < a.count; r++) {
        int s = r;
        while (s > p.segment) {
            s = a.segments[s].parent;
        }
        if (s != p.segment) {
            continue;  // no descendant
        }
        const segment run = a.segments[r];
        for (int start = r == p.segment ? p.start : 0; start < run.length; start += TILE) {
            // how many tokens the first query is behind the first key
            const int by = run.past + start - a.segments[p.segment].past - p.start;
            if (by - (rows - 1) >= a.window) {
                break;
            }
            const int     n     = min((int) TILE, run.length - start);
            const int64_t query = (int64_t) run.first + start;
            for (int h = kv * shared; h < (kv + 1) * shared; h++) {
                __syncthreads();
                fetch<D>(q, a.qkv, query, n, h * a.dim, a.dim);
                fetch<D>(g, dout, query, n, h * a.dim, a.dim);
                __syncthreads();
                float s[4][2], dp[4][2];
                products<D>(k, q, s);
                products<D>(v, g, dp);
                for (int j = 0; j < 2; j++) {
                    const int   c     = x + LANES16 * j;  // the query
                    const float log   = c < n ? logs[h * tokens + query + c] : 0,
                                delta = c < n ? deltas[h * tokens + query + c] : 0;
                    for (int i = 0; i < 4; i++) {
                        const float score = c < n ? a.score(s[i][j], by + c - 4 * y - i) : -INFINITY;
                        const float e     = score != -INFINITY ? expf(score - log) : 0;
                        s[i][j]           = e;
                        dp[i][j]          = score != -INFINITY ? e * (dp[i][j] - delta) * a.slope(score) : 0;
                    }
                }
                share(scores, s);
                add_products<D>(scores, g, dv);
                share(scores, dp);
                add_products<D>(scores, q, dk);
            }
        }
    }
    const float one[4] = { 1, 1, 1, 1 }, by[4] = { a.scale, a.scale, a.scale, a.scale };
    store<D>(dk, by, dqkv, first, rows, a.key(kv), a.dim);
    store<D>(dv, one, dqkv, first, rows, a.value(kv), a.dim);
}

}  // namespace cuda
}  // namespace vera
