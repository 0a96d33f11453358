// Causal attention of texts that grow: new rows of several texts see what the caches of their texts hold, and are
// appended to them.
//
// Keys are stored transposed in blocks of KEY_BLOCK, [dim][KEY_BLOCK], so that the scores of a block stand side by side
// in vectors; values are stored as rows of dim. dim is padded to a multiple of KEY_BLOCK. A thread takes some rows of a
// text, of all heads that share a KV head, and computes all their scores, the softmax, and the sums of values: 4 dim
// operations and an exponential a score. Keys and values are read once for these rows.
//
// With a window, a piece begins at the block of the first key that its first row sees. Keys that another row does not
// see have weight 0.
//
// Scores are summed in the order of dim, results in the order of keys, and the softmax of a row begins at its own first
// key. So a result does not depend on the rows that are computed with it.
#pragma once

#include "dense.hpp"
#include "exp.hpp"
#include "unpack.hpp"

namespace vera {
namespace KERNELS {

enum {
    KEY_BLOCK = 16,   // the same for every instruction set, as memory is laid out so
    TOGETHER  = 24,   // query rows (heads times tokens) in a piece, about
    SPLIT     = 128,  // keys in a task of scores
    WIDTH     = 16,   // columns of values in a task of sums
};

template <typename T> struct cached {  // T: float or half
    const ggml_tensor *qkv, *k, *v;
    const int32_t *    rows;                                            // text and position of each
    int64_t            n, heads, kv, group, dim, padded, room, window;  // window: 0 is none
    float              scale, cap;
    const float *      sinks;  // of each head, or NULL

    cached(const thread & t, const ggml_vera_attention & with)
        : qkv(t.src[0]), k(t.src[1]), v(t.src[2]), rows((const int32_t *) t.src[3]->data), n(qkv->ne[1]),
          heads(with.heads), kv(with.kv_heads), group(heads / kv), dim(qkv->ne[0] / (heads + 2 * kv)),
          padded((dim + KEY_BLOCK - 1) / KEY_BLOCK * KEY_BLOCK), room(k->ne[0] / padded), window(with.window),
          scale(with.scale), cap(with.cap), sinks(t.src[4] ? (const float *) t.src[4]->data : nullptr) {}

    int64_t text(int64_t row) const { return rows[2 * row]; }
    int64_t position(int64_t row) const { return rows[2 * row + 1]; }
    T *     keys(int64_t text, int64_t head) const { return (T *) row(k, text * kv + head); }
    T *     values(int64_t text, int64_t head) const { return (T *) row(v, text * kv + head); }
    // The first key that the row sees.
    int64_t first_key(int64_t row) const {
        return window > 0 && position(row) >= window ? position(row) + 1 - window : 0;
    }
    const float * head_of(int64_t r, int64_t head) const { return (const float *) row(qkv, r) + head * dim; }

    // Appends the keys and values of a row to the cache.
    void append(int64_t r) const {
        const int64_t p = position(r);
        for (int64_t h = 0; h < kv; h++) {
            const float * from = head_of(r, heads + h);
            T *           to   = keys(text(r), h) + p / KEY_BLOCK * KEY_BLOCK * padded + p % KEY_BLOCK;
            for (int64_t d = 0; d < dim; d++) {
                assign(to[d * KEY_BLOCK], from[d]);
            }
            to   = values(text(r), h) + p * padded;
            from = head_of(r, heads + kv + h);
            for (int64_t d = 0; d < padded; d++) {
                assign(to[d], d < dim ? from[d] : 0);
            }
        }
    }

    // The end of the rows that are in one piece with row r.
    int64_t next(int64_t r) const {
        const int64_t most = group < TOGETHER ? TOGETHER / group : 1;
        int64_t       end  = r + 1;
        while (end < n && end - r < most && text(end) == text(r)) {
            end++;
        }
        return end;
    }
};

// Softmax of the first n elements of s, and zeros from there to `end`. A cap makes them cap · tanh(s / cap) first. The
// sink, −∞ for none, is one more score, which gets no place in s.
static void softmax(float * s, int64_t n, int64_t end, float cap, float sink) {
    if (cap != 0) {
        by_vectors(n, [&](int64_t i, auto some) {
            store(s + i, splat(cap) * tanh_of(load(s + i, some) * splat(1 / cap)), some);
        });
    }
    vf top = splat(sink), sums = vf{};
    by_vectors(n, [&](int64_t i, auto some) {
        const vf v = load(s + i, some, -INFINITY);
        top        = v > top ? v : top;
    });
    const float most = max_of(top);
    by_vectors(n, [&](int64_t i, auto some) {
        const vf p = exp_of(load(s + i, some, -INFINITY) - splat(most));
        sums += p;
        store(s + i, p, some);
    });
    const vf by = splat(1 / (sum(sums) + std::exp(sink - most)));
    by_vectors(n, [&](int64_t i, auto some) { store(s + i, load(s + i, some) * by, some); });
    memset(s + n, 0, (end - n) * sizeof(float));
}

// Some rows of one text and one KV head. Row i is row first + i / group of them and head i % group of the KV head.
template <typename T> struct cached_piece {
    int64_t first, end, head, count, begin, keys;  // the rows see keys from `begin` to `keys`
    float * q, *scores;                            // [count][dim], [count][stride] from `begin` on
    int64_t stride;

    cached_piece(const cached<T> & a, int64_t r, int64_t next, int64_t h)
        : first(r), end(next), head(h), count((next - r) * a.group), begin(a.first_key(r) / KEY_BLOCK * KEY_BLOCK),
          keys(a.position(next - 1) + 1), q(nullptr), scores(nullptr),
          stride((keys - begin + KEY_BLOCK - 1) / KEY_BLOCK * KEY_BLOCK) {}

    void place(carver & c, const cached<T> & a) {
        q      = c.take<float>(count * a.padded);
        scores = c.take<float>(count * stride);
    }

    void fetch(const cached<T> & a) const {
        for (int64_t i = 0; i < count; i++) {
            const float * from = a.head_of(first + i / a.group, head * a.group + i % a.group);
            for (int64_t d = 0; d < a.dim; d++) {
                q[i * a.padded + d] = a.scale * from[d];
            }
        }
    }

    // The scores of keys j … end.
    void score(const cached<T> & a, int64_t j, int64_t end) const {
        const T * k = a.keys(a.text(first), head);
        for (; j < end; j += KEY_BLOCK) {
            dense(count, KEY_BLOCK, a.dim, q, a.padded, k + j * a.padded, KEY_BLOCK, scores + j - begin, stride, false);
        }
    }

    void weigh(const cached<T> & a, int64_t i) const {
        const int64_t row = first + i / a.group, from = a.first_key(row);
        float *       s = scores + i * stride;
        for (int64_t j = 0; j < from - begin; j++) {
            s[j] = 0;
        }
        softmax(s + from - begin, a.position(row) + 1 - from, keys - from, a.cap,
                a.sinks ? a.sinks[head * a.group + i % a.group] : -INFINITY);
    }

    // The sums of columns d … d + WIDTH of the values.
    void add_values(const cached<T> & a, int64_t d, ggml_tensor * dst) const {
        alignas(64) float out[ROWS][WIDTH];
        const int64_t     n = a.dim - d < WIDTH ? a.dim - d : WIDTH;
        for (int64_t i = 0; i < count; i += ROWS) {
            const int64_t some = count - i < ROWS ? count - i : ROWS;
            dense(some, WIDTH, keys - begin, scores + i * stride, stride,
                  a.values(a.text(first), head) + begin * a.padded + d, a.padded, out[0], WIDTH, false);
            for (int64_t r = 0; r < some; r++) {
                const int64_t column = (head * a.group + (i + r) % a.group) * a.dim + d;
                put(dst, row(dst, first + (i + r) / a.group) + column * (dst->type == BF16 ? 2 : 4), out[r], n);
            }
        }
    }
};

// Calls f for all pieces.
template <typename T, typename F> static void each_piece(const cached<T> & a, F f) {
    for (int64_t r = 0, end; r < a.n; r = end) {
        end = a.next(r);
        for (int64_t h = 0; h < a.kv; h++) {
            f(cached_piece<T>(a, r, end, h));
        }
    }
}

// All threads compute one piece after the other. With few rows, this divides keys and values among them.
template <typename T> static void attend_together(const thread & t, const cached<T> & a, ggml_tensor * dst) {
    carver counted = { 0 };
    each_piece(a, [&](cached_piece<T> p) { p.place(counted, a); });
    if (t.ith == 0) {
        t.parts(counted.next);
    }
    t.barrier();
    // Calls f(piece, i) for each task i of each piece, which has count(piece) of them.
    const auto tasks = [&](auto count, auto f) {
        carver  c    = { (uintptr_t) t.parts(0) };
        int64_t mine = t.take(), task = 0;
        each_piece(a, [&](cached_piece<T> p) {
            p.place(c, a);
            for (const int64_t end = task + count(p), first = task; task < end; task++) {
                if (task == mine) {
                    f(p, task - first);
                    mine = t.take();
                }
            }
        });
        t.barrier();
    };
    tasks([](const cached_piece<T> &) { return 1; }, [&](const cached_piece<T> & p, int64_t) { p.fetch(a); });
    tasks([](const cached_piece<T> & p) { return (p.keys - p.begin + SPLIT - 1) / SPLIT; },
          [&](const cached_piece<T> & p, int64_t i) {
              const int64_t j = p.begin + i * SPLIT;
              p.score(a, j, j + SPLIT < p.keys ? j + SPLIT : p.keys);
          });
    tasks([](const cached_piece<T> & p) { return p.count; },
          [&](const cached_piece<T> & p, int64_t i) { p.weigh(a, i); });
    tasks([&](const cached_piece<T> &) { return a.padded / WIDTH; },
          [&](const cached_piece<T> & p, int64_t i) { p.add_values(a, i * WIDTH, dst); });
}

// Each thread computes whole pieces.
template <typename T> static void attend_apart(const thread & t, const cached<T> & a, ggml_tensor * dst) {
    int64_t mine = t.take(), piece = 0;
    each_piece(a, [&](cached_piece<T> p) {
        if (piece++ != mine) {
            return;
        }
        carver counted = { 0 };
        p.place(counted, a);
        carver c = { (uintptr_t) t.scratch(counted.next) };
        p.place(c, a);
        p.fetch(a);
        p.score(a, p.begin, p.keys);
        for (int64_t i = 0; i < p.count; i++) {
            p.weigh(a, i);
        }
        for (int64_t d = 0; d < a.padded; d += WIDTH) {
            p.add_values(a, d, dst);
        }
        mine = t.take();
    });
}

template <typename T> static void attend_cached(const thread & t, const ggml_vera_attention & with, ggml_tensor * dst) {
    const cached<T> a(t, with);
    for (int64_t r; (r = t.take()) < a.n;) {
        a.append(r);
    }
    t.barrier();
    int64_t pieces = 0;
    each_piece(a, [&](const cached_piece<T> &) { pieces++; });
    if (pieces < 8 * t.nth) {
        attend_together(t, a, dst);
    } else {
        attend_apart(t, a, dst);
    }
}

// Keys and values are [dim · room, texts · KV heads], float32 or float16. `room`, a multiple of KEY_BLOCK, is the most
// tokens that a text may have. rows [2, n], int32, holds for each column of qkv, float32, its text and its position
// there. Rows of a text follow each other, without a gap after what the cache holds. Sources: qkv, keys, values, rows,
// sinks or NULL.
static void attention_cached(const thread & t, const ggml_vera_attention & with, ggml_tensor * dst) {
    if (t.src[1]->type == F32) {
        attend_cached<float>(t, with, dst);
    } else {
        attend_cached<half>(t, with, dst);
    }
}

}  // namespace KERNELS
}  // namespace vera
