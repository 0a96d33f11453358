// Texts that grow, in float32: attention to what a cache holds, and convolutions and delta nets that go on from their
// states. A row's result does not depend on the rows that are computed with it.
#pragma once

#include "kernels.hpp"

namespace vera {
namespace cuda {

// The text and position of each row. Rows of a text follow each other.
struct places {
    const int32_t * at;

    __device__ int text(int64_t r) const { return at[2 * r]; }

    __device__ int position(int64_t r) const { return at[2 * r + 1]; }
};

// Four elements of a cache.
__device__ static float4 load4(const float * p) { return *(const float4 *) p; }

__device__ static float4 load4(const uint16_t * p) {
    const uint2 v = *(const uint2 *) p;
    return { from_half(v.x & 0xffff), from_half(v.x >> 16), from_half(v.y & 0xffff), from_half(v.y >> 16) };
}

__device__ static void assign(float & to, float x) { to = x; }

__device__ static void assign(uint16_t & to, float x) { to = to_half(x); }

__device__ static float dot4(float4 a, float4 b) { return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w; }

__device__ static void add4(float4 & to, float by, float4 x) {
    to.x += by * x.x;
    to.y += by * x.y;
    to.z += by * x.z;
    to.w += by * x.w;
}

// Attention to the keys and values that a cache holds. A block computes a part of the keys for one row and some of the
// query heads that share a KV head; a thread takes the scores of one key after the other, then four columns of values.
// Keys and values are read once. A second kernel joins the parts.
//
// Keys are stored in blocks of KEY_BLOCK, [padded / 4][KEY_BLOCK][4], so that the threads of a warp read neighbours;
// values are stored as rows of `padded`.
enum { KEY_BLOCK = 16, PART_HEAD = 4 };  // PART_HEAD: floats before the sums of a part, which has its top and total

struct cache_pack {
    matrix        qkv;
    char *        keys, *values;  // of type T, `stride` elements for each KV head of each text
    int64_t       stride;
    places        rows;
    int           heads, kv_heads, dim, padded, window;  // window: INT_MAX for none
    int           part, parts;                           // keys in a part, and how many parts there may be
    float         scale, cap;                            // cap: 0 for none
    const float * sinks;                                 // of each head, or NULL
    float *       results;                               // of the parts, for each row and head of a launch

    __device__ int first(int64_t r) const {
        const int end = rows.position(r) + 1;
        return end > window ? end - window : 0;
    }

    template <typename T> __device__ T * keys_of(int64_t r, int kv) const {
        return (T *) keys + ((int64_t) rows.text(r) * kv_heads + kv) * stride;
    }

    template <typename T> __device__ T * values_of(int64_t r, int kv) const {
        return (T *) values + ((int64_t) rows.text(r) * kv_heads + kv) * stride;
    }

    __device__ float * result(int64_t row, int head, int of) const {
        return results + ((row * heads + head) * parts + of) * (padded + PART_HEAD);
    }
};

// Stores the keys and values of a row and KV head.
template <typename T> __global__ static void append(cache_pack a) {
    const int64_t r = blockIdx.y, p = a.rows.position(r);
    const int     kv     = blockIdx.x;
    T *           keys   = a.keys_of<T>(r, kv) + p / KEY_BLOCK * KEY_BLOCK * a.padded + p % KEY_BLOCK * 4;
    T *           values = a.values_of<T>(r, kv) + p * a.padded;
    for (int i = threadIdx.x; i < a.padded; i += THREADS) {
        const bool in = i < a.dim;
        assign(keys[i / 4 * KEY_BLOCK * 4 + i % 4], in ? a.qkv.get(r, (a.heads + kv) * a.dim + i) : 0);
        assign(values[i], in ? a.qkv.get(r, (a.heads + a.kv_heads + kv) * a.dim + i) : 0);
    }
}

// A part of the keys for row `row` + blockIdx.y / …, and at most G heads: the largest score, Σ exp(score − top), and
// the sums of values with these weights.
template <typename T, int G> __global__ static void attend_part(cache_pack a, int64_t row) {
    DYNAMIC_SHARED(float, memory);
    float *       q = memory, *scores = q + G * a.padded, *sums = scores + G * THREADS;
    const int     group = a.heads / a.kv_heads, sets = (group + G - 1) / G, set = blockIdx.y % sets,
                  kv = blockIdx.y / sets % a.kv_heads, head = kv * group + set * G, heads = min(G, group - set * G);
    const int64_t local = blockIdx.y / sets / a.kv_heads, r = row + local;
    const int     begin = max(a.first(r), (int) blockIdx.x * a.part),
                  end   = min(a.rows.position(r) + 1, (int) (blockIdx.x + 1) * a.part);
    if (begin >= end) {
        return;
    }
    for (int i = threadIdx.x; i < G * a.padded; i += THREADS) {
        const int g = i / a.padded, d = i % a.padded;
        q[i] = g < heads && d < a.dim ? a.scale * a.qkv.get(r, (head + g) * a.dim + d) : 0;
    }
    __syncthreads();
    const T * keys  = a.keys_of<T>(r, kv);
    const T * value = a.values_of<T>(r, kv);
    const int fours = a.padded / 4, slots = THREADS / fours, slot = threadIdx.x / fours, four = threadIdx.x % fours;
    float     top[G], total[G];
    float4    sum[G];
    for (int g = 0; g < G; g++) {
        top[g]   = -INFINITY;
        total[g] = 0;
        sum[g]   = { 0, 0, 0, 0 };
    }
    for (int tile = begin / KEY_BLOCK * KEY_BLOCK; tile < end; tile += THREADS) {
        const int  key  = tile + threadIdx.x;
        const bool seen = key >= begin && key < end;
        float      s[G] = {};
        if (seen) {
            const T * k = keys + (int64_t) key / KEY_BLOCK * KEY_BLOCK * a.padded + key % KEY_BLOCK * 4;
            for (int i = 0; i < fours; i++) {
                const float4 x = load4(k + i * KEY_BLOCK * 4);
                for (int g = 0; g < G; g++) {
                    s[g] += dot4(*(const float4 *) (q + g * a.padded + 4 * i), x);
                }
            }
        }
        for (int g = 0; g < G; g++) {
            s[g]              = a.cap != 0 ? a.cap * tanhf(s[g] / a.cap) : s[g];
            const float next  = fmaxf(top[g], over_block(seen ? s[g] : -INFINITY, greater())),
                        by    = next == -INFINITY ? 0 : next;
            const float older = expf(top[g] - by), p = seen ? expf(s[g] - by) : 0;
            total[g] = total[g] * older + block_sum(p);
            top[g]   = next;
            sum[g]   = { sum[g].x * older, sum[g].y * older, sum[g].z * older, sum[g].w * older };
            scores[g * THREADS + threadIdx.x] = p;
        }
        __syncthreads();
        const int last = min(end - tile, (int) THREADS);
        for (int j = max(begin - tile, 0) + slot; slot < slots && j < last; j += slots) {
            const float4 v = load4(value + (int64_t) (tile + j) * a.padded + 4 * four);
            for (int g = 0; g < G; g++) {
                add4(sum[g], scores[g * THREADS + j], v);
            }
        }
        __syncthreads();
    }
    for (int g = 0; g < heads; g++) {
        float4 * all     = (float4 *) sums;
        all[threadIdx.x] = sum[g];
        __syncthreads();
        float * to = a.result(local, head + g, blockIdx.x);
        if (slot == 0) {
            float4 x = all[four];
            for (int i = 1; i < slots; i++) {
                add4(x, 1, all[i * fours + four]);
            }
            ((float4 *) (to + PART_HEAD))[four] = x;
        }
        if (threadIdx.x == 0) {
            to[0] = top[g];
            to[1] = total[g];
        }
        __syncthreads();
    }
}

// The result of a head, blockIdx.x, of row `row` + blockIdx.y, from its parts.
__global__ static void join_parts(cache_pack a, matrix out, int64_t row) {
    const int     head  = blockIdx.x;
    const int64_t r     = row + blockIdx.y;
    const int     first = a.first(r) / a.part, last = a.rows.position(r) / a.part;
    const auto    part = [&](int i) { return (const float *) a.result(blockIdx.y, head, i); };
    const float   sink = a.sinks ? a.sinks[head] : -INFINITY;
    float         top  = sink;
    for (int i = first; i <= last; i++) {
        top = fmaxf(top, part(i)[0]);
    }
    top         = top == -INFINITY ? 0 : top;
    float total = expf(sink - top);
    for (int i = first; i <= last; i++) {
        total += part(i)[1] * expf(part(i)[0] - top);
    }
    for (int d = threadIdx.x; d < a.dim; d += THREADS) {
        float sum = 0;
        for (int i = first; i <= last; i++) {
            sum += part(i)[PART_HEAD + d] * expf(part(i)[0] - top);
        }
        out.put(r, head * a.dim + d, sum / total);
    }
}

// A causal convolution of every column. state keeps the last taps − 1 rows of a text: row p in place p mod (taps − 1).
// Rows of the text that come with this one are taken from x.
__global__ static void convolve_on(matrix x, matrix w, matrix state, places rows, matrix y, int64_t n, int taps) {
    const int64_t r = blockIdx.y, i = blockIdx.x * (int64_t) THREADS + threadIdx.x;
    if (i >= n) {
        return;
    }
    const int text = rows.text(r), position = rows.position(r);
    float     sum = w.get(i, taps - 1) * x.get(r, i);
    for (int back = 1; back < taps && back <= position; back++) {
        const bool    together = back <= r && rows.text(r - back) == text;
        const int64_t kept     = (int64_t) text * (taps - 1) + (position - back) % (taps - 1);
        sum += w.get(i, taps - 1 - back) * (together ? x.get(r - back, i) : state.get(kept, i));
    }
    y.put(r, i, sum);
}

// Puts the last rows of each text into its state.
__global__ static void keep_last(matrix x, matrix state, places rows, int64_t count, int64_t n, int taps) {
    const int64_t r = blockIdx.y, i = blockIdx.x * (int64_t) THREADS + threadIdx.x, later = r + taps - 1;
    const int     text = rows.text(r);
    if (i < n && (later >= count || rows.text(later) != text)) {
        state.put((int64_t) text * (taps - 1) + rows.position(r) % (taps - 1), i, x.get(r, i));
    }
}

// A gated delta net; bindings/delta.go has its formulas. A block goes through the rows of a text for one value head. A
// thread takes a column of the state, [dim_k, dim_v], twice a row: for what it holds of the key, then to change it and
// read the query.
__global__ static void delta_on(matrix qkv, matrix a, matrix b, const float * decay, const float * bias, matrix states,
                                places rows, matrix y, int64_t count, ggml_vera_delta_net with) {
    DYNAMIC_SHARED(float, memory);
    const int     head = blockIdx.x, dk = with.dim_k, dv = with.dim_v, from = head % with.keys * dk;
    const int64_t first = blockIdx.y, column = 2 * (int64_t) with.keys * dk + (int64_t) head * dv;
    const int     text = rows.text(first);
    float *       q = memory, *k = q + dk;
    if (first > 0 && rows.text(first - 1) == text) {
        return;  // the block of the text's first row computes it
    }
    for (int64_t r = first; r < count && rows.text(r) == text; r++) {
        float squares[2] = {};
        for (int i = threadIdx.x; i < dk; i += THREADS) {
            for (int part = 0; part < 2; part++) {
                const float x = qkv.get(r, part * with.keys * dk + from + i);
                squares[part] += x * x;
            }
        }
        for (int part = 0; part < 2; part++) {
            const float norm = 1 / sqrtf(block_sum(squares[part]) + with.eps),
                        by   = part ? norm : norm / sqrtf((float) dk);
            for (int i = threadIdx.x; i < dk; i += THREADS) {
                memory[part * dk + i] = by * qkv.get(r, part * with.keys * dk + from + i);
            }
        }
        __syncthreads();
        const float x = a.get(r, head) + bias[head], g = decay[head] * (fmaxf(x, 0) + log1pf(expf(-fabsf(x)))),
                    grown = expf(g), beta = 1 / (1 + expf(-b.get(r, head)));
        const bool  fresh = rows.position(r) == 0;
        for (int j = threadIdx.x; j < dv; j += THREADS) {
            float * s    = (float *) states.data + text * states.stride + (int64_t) head * dk * dv + j;
            float   held = 0, read = 0;
            for (int i = 0; i < dk; i++) {
                held += fresh ? 0 : k[i] * s[i * dv];
            }
            const float u = beta * (qkv.get(r, column + j) - grown * held);
            for (int i = 0; i < dk; i++) {
                const float next = k[i] * u + (fresh ? 0 : grown * s[i * dv]);
                s[i * dv]        = next;
                read += q[i] * next;
            }
            y.put(r, (int64_t) head * dv + j, read);
        }
        __syncthreads();
    }
}

}  // namespace cuda
}  // namespace vera
