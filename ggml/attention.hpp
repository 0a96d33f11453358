// Causal attention over a pack's samples, for each head with queries Q, keys K and values V as rows:
//
//   S = scale · Q Kᵀ,  P = softmax of S's rows,  O = P V
//   dV = Pᵀ dO,  dP = dO Vᵀ,  dS = P ⊙ (dP − rowsum(P ⊙ dP)),  dQ = scale · dS K,  dK = dSᵀ (scale · Q)
//
// With a cap, S = cap · T with T = tanh(scale · Q Kᵀ / cap), and dS ⊙ (1 − T²) replaces dS. With sinks, each row of S
// has one score more, its head's sink, which takes part in the softmax and has no value.
//
// qkv is [dim · (heads + 2 · KV heads), tokens]: the queries of all heads, then the keys of the KV heads, then their
// values. segments [4, n], int32, cuts the tokens into a tree of runs (call.h). A query sees all keys of its segment's
// ancestors, in order from the root, and those of its own segment up to itself; with a window, only the last of these.
// Everything is computed in float32.
//
// A thread copies the keys and values that a segment's queries see, of one KV head, out of the pack as float32:
// [keys][dim]. It goes through the queries of all heads that share them, COLUMNS rows at a time; row r is query r /
// group of the group's head r % group. Scores are stored transposed, [keys][COLUMNS], with queries side by side in
// vectors. So the softmax needs no sums within a vector, and no product needs its operands rearranged: keys by
// transposed queries for S, transposed values by P for O, Pᵀ by the rows of dO for dV. Scores above the diagonal, and
// below the window, are left out up to the width of a vector.
//
// For heads of length dim, forward takes 4 dim operations a score and backward 10 dim, and both one exponential. KEYS
// keys are processed together: their COLUMNS · KEYS scores stay in the first-level cache from one product to the next.
// Forward writes a score to the second-level cache once and reads it once; backward does so for S, P and dP.
#pragma once

#include "dense.hpp"
#include "exp.hpp"
#include "transpose.hpp"

namespace vera {
namespace KERNELS {

enum {
    COLUMNS = 64,  // query rows in a block
    KEYS    = 64,  // keys that are processed together
    FEW     = 16,  // the same where some rows do not see all of them
    // query rows, about, in a task of forward: fewer balance better, more fetch keys and values less often
    TASK  = 512,
    AHEAD = 4,  // rows to prefetch: the parts of one head are too far apart for the processor to predict
};

// What the kernels work on.
struct attention_pack {
    const ggml_tensor * qkv;
    const segment *     segments;
    int64_t             count, kv, dim, group;  // group: heads to a KV head
    // padded: dim in whole vectors; longest: the most tokens up to a query, itself included
    int64_t       padded, longest;
    int64_t       window;  // how many of these it sees
    float         scale, cap;
    const float * sinks;  // of each head, or NULL

    attention_pack(const ggml_vera_attention & with, const ggml_tensor * of, const ggml_tensor * tree,
                   const ggml_tensor * sink)
        : qkv(of), segments((const segment *) tree->data), count(tree->ne[1]), kv(with.kv_heads),
          dim(of->ne[0] / (with.heads + 2 * with.kv_heads)), group(with.heads / with.kv_heads), padded(whole(dim)),
          longest(0), scale(with.scale), cap(with.cap), sinks(sink ? (const float *) sink->data : nullptr) {
        for (int64_t i = 0; i < count; i++) {
            const int64_t keys = segments[i].past + segments[i].length;
            longest            = keys > longest ? keys : longest;
        }
        window = with.window > 0 ? with.window : longest;
    }

    // The first key that a query of a segment sees.
    int64_t first_key(const segment & s, int64_t query) const {
        const int64_t key = s.past + query + 1 - window;
        return key > 0 ? key : 0;
    }

    // Where the keys and values of a KV head stand in a row, in heads.
    int64_t keys_of(int64_t head) const { return kv * group + head; }
    int64_t values_of(int64_t head) const { return kv * (group + 1) + head; }

    // to = factor · one head of a row of t, padded with zeros.
    void fetch(const ggml_tensor * t, int64_t i, int64_t head, float factor, float * to) const {
        alignas(64) float buf[256];
        const size_t      size = t->type == BF16 ? 2 : 4;
        const char *      from = row(t, i) + head * dim * size;
        prefetch(from + AHEAD * t->nb[1], dim * size);
        for (int64_t d = 0; d < dim; d += 256) {
            const int64_t n      = dim - d < 256 ? dim - d : 256;
            const float * values = floats(t, from + d * size, buf, n);
            for (int64_t c = 0; c < n; c++) {
                to[d + c] = factor * values[c];
            }
        }
        memset(to + dim, 0, (padded - dim) * sizeof(float));
    }

    // Copies the keys and values of a segment, from key `from` on, to where its queries and its descendants' expect
    // them.
    void fetch_segment(const segment & s, int64_t from, int64_t head, float * k, float * v) const {
        for (int64_t i = from > s.past ? from - s.past : 0; i < s.length; i++) {
            fetch(qkv, s.first + i, keys_of(head), 1, k + (s.past + i) * padded);
            fetch(qkv, s.first + i, values_of(head), 1, v + (s.past + i) * padded);
        }
    }

    void fetch_ancestors(const segment & s, int64_t from, int64_t head, float * k, float * v) const {
        for (int64_t p = s.parent; p >= 0; p = segments[p].parent) {
            fetch_segment(segments[p], from, head, k, v);
        }
    }

    // Roughly twice the scores that queries first … end of a segment need.
    int64_t cost(const segment & s, int64_t first, int64_t end) const {
        int64_t all = window - s.past;  // the first query whose window hides a key
        all         = all < first ? first : all > end ? end : all;
        return (all - first) * (2 * s.past + first + all) + (end - all) * 2 * window;
    }
};

// Query rows first … first + columns of a segment.
struct query_rows {
    const attention_pack & a;
    const segment &        s;
    int64_t                first, columns, width;  // width: columns rounded up to whole vectors
    // the first key that the first row sees, and the end of those that the last row sees
    int64_t begin, keys;

    query_rows(const attention_pack & of, const segment & segment, int64_t r, int64_t end)
        : a(of), s(segment), first(r), columns(end - r < COLUMNS ? end - r : COLUMNS), width(whole(columns)),
          begin(of.first_key(segment, r / of.group)), keys(s.past + (r + columns - 1) / a.group + 1) {}

    // How many of the first rows come before a key, and so do not see it.
    int64_t hidden(int64_t key) const {
        const int64_t n = (key - s.past) * a.group - first;
        return n < 0 ? 0 : n;
    }

    // The end of the rows that see a key within their window.
    int64_t until(int64_t key) const {
        const int64_t n = hidden(key + a.window);
        return n < columns ? n : width;
    }

    // The end of the keys that are processed together from j on.
    int64_t next(int64_t j) const {
        // all rows see the keys from some to all
        const int64_t some = keys - a.window, all = s.past + first / a.group + 1;
        const int64_t end = j < some || j >= all ? j + FEW : all - j < KEYS + KEYS / 2 ? all : j + KEYS;
        return end < keys ? end : keys;
    }

    // Copies factor · these rows of t to [COLUMNS][dim], and transposed.
    void fetch(const ggml_tensor * t, int64_t head, float factor, float * to, float * transposed) const {
        for (int64_t c = 0; c < columns; c++) {
            a.fetch(t, s.first + (first + c) / a.group, head * a.group + (first + c) % a.group, factor,
                    to + c * a.padded);
        }
        memset(to + columns * a.padded, 0, (width - columns) * a.padded * sizeof(float));
        transpose(width, a.padded, to, a.padded, transposed, COLUMNS);
    }

    // Stores transposed rows into t; buf gets them as rows.
    void put_back(ggml_tensor * t, int64_t head, const float * transposed, float * buf) const {
        transpose(a.padded, width, transposed, COLUMNS, buf, a.padded);
        for (int64_t c = 0; c < columns; c++) {
            const int64_t column = (head * a.group + (first + c) % a.group) * a.dim;
            put(t, row(t, s.first + (first + c) / a.group) + column * (t->type == BF16 ? 2 : 4), buf + c * a.padded,
                a.dim);
        }
    }

    // Whether all rows see all keys from j to end.
    bool whole_block(int64_t j, int64_t end) const { return hidden(end - 1) == 0 && until(j) == width; }

    // to[keys][COLUMNS] = k · transposed for the keys from j to end; arbitrary where a row does not see the key.
    void multiply_keys(int64_t j, int64_t end, const float * k, const float * transposed, float * to) const {
        const bool all = whole_block(j, end);
        for (int64_t some; j < end; j += some) {
            some               = all || end - j < ROWS ? end - j : ROWS;
            const int64_t skip = hidden(j) / LANES * LANES, stop = whole(until(j + some - 1));
            dense(some, stop - skip, a.dim, k + j * a.padded, a.padded, transposed + skip, COLUMNS,
                  to + j * COLUMNS + skip, COLUMNS, false);
        }
    }

    // of[keys][COLUMNS] = none where a row does not see the key, for the keys from j to end.
    void mask(int64_t j, int64_t end, float none, float * of) const {
        if (whole_block(j, end)) {
            return;
        }
        for (int64_t i = j; i < end; i++) {
            float * scores = of + i * COLUMNS;
            for (int64_t c = 0, n = hidden(i); c < n; c++) {
                scores[c] = none;
            }
            for (int64_t c = until(i); c < width; c++) {
                scores[c] = none;
            }
        }
    }

    // to[keys][dim] += p[keys][COLUMNS] · of[COLUMNS][dim] for the keys from j to end, over the rows that see them.
    void sum_rows(int64_t j, int64_t end, const float * p, const float * of, float * to) const {
        const bool all = whole_block(j, end);
        for (int64_t some; j < end; j += some) {
            some               = all || end - j < ROWS ? end - j : ROWS;
            const int64_t skip = hidden(j), stop = until(j + some - 1);
            dense(some, a.padded, (stop < columns ? stop : columns) - skip, p + j * COLUMNS + skip, COLUMNS,
                  of + skip * a.padded, a.padded, to + j * a.padded, a.padded, true);
        }
    }

    // to[dim][COLUMNS] += transposed[dim][keys] · p[keys][COLUMNS] for the keys from j to end.
    void sum_keys(int64_t j, int64_t end, const float * transposed, int64_t stride, const float * p, float * to) const {
        const int64_t skip = hidden(j) / LANES * LANES, stop = whole(until(end - 1));
        dense(a.dim, stop - skip, end - j, transposed + j, stride, p + j * COLUMNS + skip, COLUMNS, to + skip, COLUMNS,
              true);
    }

    // The sink of each row; −∞ for none.
    void sinks(int64_t head, float * to) const {
        for (int64_t c = 0; c < width; c++) {
            to[c] = a.sinks ? a.sinks[head * a.group + (first + c) % a.group] : -INFINITY;
        }
    }

    // The scores of the rows, [keys][COLUMNS]; the largest of each row, its sink included; and what the sink adds to
    // the sum of exponentials. With a cap, slopes gets 1 − T², unless it is NULL.
    void scores(int64_t head, const float * k, const float * transposed, float * to, float * slopes, float * largest,
                float * sums) const {
        sinks(head, largest);
        sinks(head, sums);
        for (int64_t j = begin, end; j < keys; j = end) {
            end = next(j);
            multiply_keys(j, end, k, transposed, to);
            if (a.cap != 0) {
                cap(j, end, to, slopes);
            }
            mask(j, end, -INFINITY, to);
            for (int64_t c = 0; c < width; c += LANES) {
                vf m = load(largest + c);
                for (int64_t i = j; i < end; i++) {
                    const vf x = load(to + i * COLUMNS + c);
                    m          = x > m ? x : m;
                }
                store(largest + c, m);
            }
        }
        for (int64_t c = 0; c < width; c += LANES) {
            store(sums + c, exp_of(load(sums + c) - load(largest + c)));
        }
    }

    // Caps the scores of the keys from j to end.
    void cap(int64_t j, int64_t end, float * of, float * slopes) const {
        for (int64_t i = j * COLUMNS; i < end * COLUMNS; i += COLUMNS) {
            for (int64_t c = 0; c < width; c += LANES) {
                vf slope;
                store(of + i + c, splat(a.cap) * tanh_of(load(of + i + c) * splat(1 / a.cap), slope));
                if (slopes) {
                    store(slopes + i + c, slope);
                }
            }
        }
        if (slopes) {
            mask(j, end, 0, slopes);
        }
    }
};

// A piece of work. The costliest are taken first.
struct piece {
    int64_t cost, index, first, end;

    static int before(const void * p, const void * q) {
        const piece &a = *(const piece *) p, &b = *(const piece *) q;
        if (a.cost != b.cost) {
            return a.cost > b.cost ? -1 : 1;
        }
        return a.index != b.index ? (a.index < b.index ? -1 : 1) : a.first < b.first ? -1 : a.first > b.first;
    }
};

// Memory of forward.
struct forward_memory {
    piece * pieces;
    float * k, *v, *transposed;  // [keys][dim] twice, and the values as [dim][keys]
    float * q, *qt;              // [COLUMNS][dim], [dim][COLUMNS]
    float * scores, *out;        // [keys][COLUMNS], [dim][COLUMNS]
    int64_t stride;

    forward_memory(carver & c, const attention_pack & a, int64_t count) {
        // an odd number of vectors: rows must not fall into the same sets of the cache
        stride     = whole(a.longest) | LANES;
        pieces     = c.take<piece>(count);
        k          = c.take<float>((a.longest + LANES) * a.padded);
        v          = c.take<float>((a.longest + LANES) * a.padded);
        transposed = c.take<float>(stride * a.padded);
        q          = c.take<float>(COLUMNS * a.padded);
        qt         = c.take<float>(COLUMNS * a.padded);
        scores     = c.take<float>(a.longest * COLUMNS);
        out        = c.take<float>(COLUMNS * a.padded);
    }
};

// Attention of some query rows.
static void attend(const query_rows & r, const forward_memory & m, int64_t head, ggml_tensor * dst) {
    alignas(64) float largest[COLUMNS], sums[COLUMNS];
    r.fetch(r.a.qkv, head, r.a.scale, m.q, m.qt);
    r.scores(head, m.k, m.qt, m.scores, nullptr, largest, sums);
    memset(m.out, 0, COLUMNS * r.a.padded * sizeof(float));
    for (int64_t j = r.begin, end; j < r.keys; j = end) {
        end = r.next(j);
        for (int64_t c = 0; c < r.width; c += LANES) {
            const vf top = load(largest + c);
            vf       sum = load(sums + c);
            for (int64_t i = j; i < end; i++) {
                float *  s = m.scores + i * COLUMNS + c;
                const vf p = exp_of(load(s) - top);
                sum += p;
                store(s, p);
            }
            store(sums + c, sum);
        }
        r.sum_keys(j, end, m.transposed, m.stride, m.scores, m.out);
    }
    for (int64_t c = 0; c < r.width; c += LANES) {
        const vf by = splat(1) / load(sums + c);
        for (int64_t d = 0; d < r.a.dim; d++) {
            store(m.out + d * COLUMNS + c, load(m.out + d * COLUMNS + c) * by);
        }
    }
    r.put_back(dst, head, m.out, m.q);
}

// → [dim · heads, tokens]. Sources: qkv, segments, sinks or NULL.
static void attention(const thread & t, const ggml_vera_attention & with, ggml_tensor * dst) {
    const attention_pack a(with, t.src[0], t.src[1], t.src[2]);
    const int64_t        each  = TASK > a.group ? TASK / a.group : 1;
    int64_t              count = 0;
    for (int64_t i = 0; i < a.count; i++) {
        count += (a.segments[i].length + each - 1) / each;
    }
    carver counted = { 0 };
    forward_memory(counted, a, count);
    carver               c = { (uintptr_t) t.scratch(counted.next) };
    const forward_memory m(c, a, count);
    piece *              p = m.pieces;
    for (int64_t i = 0; i < a.count; i++) {
        for (int64_t q = 0, length = a.segments[i].length; q < length; q += each) {
            const int64_t end = q + each < length ? q + each : length;
            *p++              = { a.cost(a.segments[i], q, end), i, q, end };
        }
    }
    qsort(m.pieces, count, sizeof(piece), piece::before);
    for (int64_t i; (i = t.take()) < count * a.kv;) {
        const piece &   of   = m.pieces[i / a.kv];
        const int64_t   head = i % a.kv;
        const segment & s    = a.segments[of.index];
        const int64_t   from = a.first_key(s, of.first), aligned = from / LANES * LANES;
        a.fetch_ancestors(s, from, head, m.k, m.v);
        a.fetch_segment({ s.first, (int32_t) of.end, s.parent, s.past }, from, head, m.k, m.v);
        transpose(whole(s.past + of.end) - aligned, a.padded, m.v + aligned * a.padded, a.padded,
                  m.transposed + aligned, m.stride);
        for (int64_t r = of.first * a.group, end = of.end * a.group; r < end; r += COLUMNS) {
            attend(query_rows(a, s, r, end), m, head, dst);
        }
    }
}

// Segments of one parent that backward processes together, until they have a quarter as many rows as their ancestors.
// Each family sums the gradients of its ancestors' keys and values on its own; so these sums need little memory.
struct family {
    int64_t first, last, rows;    // segments, linked by backward_memory::next
    int64_t parent, past, parts;  // parts: where its sums are, [KV heads][past][2][dim]
};

// Memory of backward.
struct backward_memory {
    piece *  pieces;
    family * families;
    // for each segment: the next of its family, and the family that its next child joins
    int32_t *next, *open;
    float *  k, *v, *transposed;      // [keys][dim] twice, and the keys as [dim][keys]
    float *  q, *qt, *g, *gt;         // of queries and of dO: [COLUMNS][dim], [dim][COLUMNS]
    float *  scores, *back, *slopes;  // [keys][COLUMNS]: S, then P; dP, then dS; 1 − T², or NULL without a cap
    float *  dk, *dv, *dq;            // [keys][dim] twice, [dim][COLUMNS]
    int64_t  stride;

    backward_memory(carver & c, const attention_pack & a) {
        // as above; a segment that begins within a vector is transposed in whole vectors all the same
        stride     = whole(a.longest + LANES) | LANES;
        pieces     = c.take<piece>(a.count);
        families   = c.take<family>(a.count);
        next       = c.take<int32_t>(a.count);
        open       = c.take<int32_t>(a.count);
        k          = c.take<float>((a.longest + LANES) * a.padded);
        v          = c.take<float>((a.longest + LANES) * a.padded);
        transposed = c.take<float>(stride * a.padded);
        q          = c.take<float>(COLUMNS * a.padded);
        qt         = c.take<float>(COLUMNS * a.padded);
        g          = c.take<float>(COLUMNS * a.padded);
        gt         = c.take<float>(COLUMNS * a.padded);
        scores     = c.take<float>(a.longest * COLUMNS);
        back       = c.take<float>(a.longest * COLUMNS);
        slopes     = a.cap != 0 ? c.take<float>(a.longest * COLUMNS) : nullptr;
        dk         = c.take<float>(a.longest * a.padded);
        dv         = c.take<float>(a.longest * a.padded);
        dq         = c.take<float>(COLUMNS * a.padded);
    }
};

// The gradients that some query rows give.
static void attend_back(const query_rows & r, const backward_memory & m, int64_t head, const ggml_tensor * dout,
                        ggml_tensor * dst) {
    alignas(64) float largest[COLUMNS], sums[COLUMNS], means[COLUMNS] = {};
    r.fetch(r.a.qkv, head, r.a.scale, m.q, m.qt);
    r.fetch(dout, head, 1, m.g, m.gt);
    r.scores(head, m.k, m.qt, m.scores, m.slopes, largest, sums);
    for (int64_t j = r.begin, end; j < r.keys; j = end) {
        end = r.next(j);
        r.multiply_keys(j, end, m.v, m.gt, m.back);
        r.mask(j, end, 0, m.back);
        for (int64_t c = 0; c < r.width; c += LANES) {
            const vf top = load(largest + c);
            vf       sum = load(sums + c), mean = load(means + c);
            for (int64_t i = j * COLUMNS + c; i < end * COLUMNS; i += COLUMNS) {
                const vf p = exp_of(load(m.scores + i) - top);
                sum += p;
                mean += p * load(m.back + i);
                store(m.scores + i, p);
            }
            store(sums + c, sum);
            store(means + c, mean);
        }
    }
    memset(m.dq, 0, COLUMNS * r.a.padded * sizeof(float));
    for (int64_t j = r.begin, end; j < r.keys; j = end) {
        end = r.next(j);
        for (int64_t c = 0; c < r.width; c += LANES) {
            const vf by = splat(1) / load(sums + c), mean = load(means + c) * by;
            for (int64_t i = j * COLUMNS + c; i < end * COLUMNS; i += COLUMNS) {
                const vf p = load(m.scores + i) * by;
                store(m.scores + i, p);
                store(m.back + i, p * (load(m.back + i) - mean));
            }
            if (m.slopes) {
                for (int64_t i = j * COLUMNS + c; i < end * COLUMNS; i += COLUMNS) {
                    store(m.back + i, load(m.back + i) * load(m.slopes + i));
                }
            }
        }
        r.sum_rows(j, end, m.scores, m.g, m.dv);
        r.sum_rows(j, end, m.back, m.q, m.dk);
        r.sum_keys(j, end, m.transposed, m.stride, m.back, m.dq);
    }
    for (int64_t i = 0; i < COLUMNS * r.a.padded; i += LANES) {
        store(m.dq + i, load(m.dq + i) * splat(r.a.scale));
    }
    r.put_back(dst, head, m.dq, m.q);
}

// The gradients that a family's queries give: those of its own keys and values go into dst, those of its ancestors'
// into parts.
static void family_back(const attention_pack & a, const family & f, const backward_memory & m, int64_t head,
                        const ggml_tensor * dout, ggml_tensor * dst, float * parts) {
    const int64_t past = f.past;
    const int64_t from = a.first_key(a.segments[f.first], 0), aligned = from / LANES * LANES;
    a.fetch_ancestors(a.segments[f.first], from, head, m.k, m.v);
    transpose(whole(past) - aligned, a.padded, m.k + aligned * a.padded, a.padded, m.transposed + aligned, m.stride);
    memset(m.dk, 0, past * a.padded * sizeof(float));
    memset(m.dv, 0, past * a.padded * sizeof(float));
    for (int64_t i = f.first; i >= 0; i = m.next[i]) {
        const segment & s = a.segments[i];
        a.fetch_segment(s, past, head, m.k, m.v);
        transpose(whole(s.length), a.padded, m.k + past * a.padded, a.padded, m.transposed + past, m.stride);
        memset(m.dk + past * a.padded, 0, s.length * a.padded * sizeof(float));
        memset(m.dv + past * a.padded, 0, s.length * a.padded * sizeof(float));
        for (int64_t r = 0, end = s.length * a.group; r < end; r += COLUMNS) {
            attend_back(query_rows(a, s, r, end), m, head, dout, dst);
        }
        for (int64_t j = 0; j < s.length; j++) {
            float * to = (float *) row(dst, s.first + j);
            memcpy(to + a.keys_of(head) * a.dim, m.dk + (past + j) * a.padded, a.dim * sizeof(float));
            memcpy(to + a.values_of(head) * a.dim, m.dv + (past + j) * a.padded, a.dim * sizeof(float));
        }
    }
    parts += (f.parts + head * past) * 2 * a.dim;
    for (int64_t j = 0; j < past; j++, parts += 2 * a.dim) {
        memcpy(parts, m.dk + j * a.padded, a.dim * sizeof(float));
        memcpy(parts + a.dim, m.dv + j * a.padded, a.dim * sizeof(float));
    }
}

// The gradient of qkv, float32. Sources: dout, qkv, segments, sinks or NULL.
static void attention_back(const thread & t, const ggml_vera_attention & with, ggml_tensor * dst) {
    const ggml_tensor *  dout = t.src[0];
    const attention_pack a(with, t.src[1], t.src[2], t.src[3]);
    carver               counted = { 0 };
    backward_memory(counted, a);
    carver                c = { (uintptr_t) t.scratch(counted.next) };
    const backward_memory m(c, a);

    int64_t count = 0, shared = 0;
    for (int64_t i = 0; i < a.count; i++) {
        const segment & s = a.segments[i];
        int64_t         f = s.parent < 0 ? -1 : m.open[s.parent];
        if (f < 0 || 4 * m.families[f].rows >= s.past) {
            f             = count++;
            m.families[f] = { i, i, 0, s.parent, s.past, shared };
            m.pieces[f]   = { 0, f, 0, 0 };
            shared += s.past * a.kv;
        } else {
            m.next[m.families[f].last] = (int32_t) i;
        }
        m.families[f].last = i;
        m.families[f].rows += s.length;
        m.pieces[f].cost += a.cost(s, 0, s.length);
        m.next[i] = m.open[i] = -1;
        if (s.parent >= 0) {
            m.open[s.parent] = (int32_t) f;
        }
    }
    qsort(m.pieces, count, sizeof(piece), piece::before);
    if (shared) {
        if (t.ith == 0) {
            t.parts(shared * 2 * a.dim * sizeof(float));
        }
        t.barrier();
    }
    float * parts = (float *) t.parts(0);
    for (int64_t i; (i = t.take()) < count * a.kv;) {
        family_back(a, m.families[m.pieces[i / a.kv].index], m, i % a.kv, dout, dst, parts);
    }
    if (!shared) {
        return;
    }
    t.barrier();
    // Every segment with children adds up the parts of its descendants' families, in order.
    for (int64_t i; (i = t.take()) < a.count * a.kv;) {
        const int64_t   of = i / a.kv, head = i % a.kv;
        const segment & s = a.segments[of];
        for (int64_t f = 0; f < count && m.open[of] >= 0; f++) {
            const family & from = m.families[f];
            int64_t        p    = from.parent;
            while (p > of) {
                p = a.segments[p].parent;
            }
            if (p != of) {
                continue;
            }
            const float * part = parts + (from.parts + head * from.past + s.past) * 2 * a.dim;
            for (int64_t j = 0; j < s.length; j++, part += 2 * a.dim) {
                float *dk = (float *) row(dst, s.first + j) + a.keys_of(head) * a.dim,
                      *dv = (float *) row(dst, s.first + j) + a.values_of(head) * a.dim;
                for (int64_t d = 0; d < a.dim; d++) {
                    dk[d] += part[d];
                    dv[d] += part[a.dim + d];
                }
            }
        }
    }
}

}  // namespace KERNELS
}  // namespace vera
