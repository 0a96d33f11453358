// Causal attention of texts that grow: new rows of several texts see what the texts' caches hold, and join it.
//
// Keys lie in blocks of KEY_BLOCK, turned: [dim][KEY_BLOCK], so that the scores of a block are found side by side in vectors; values lie as rows of dim. `dim` is
// filled up to whole vectors. A thread takes some rows of a text, of all heads that share a KV head. It computes all their scores, their softmax, and their sums
// of values: 4 dim operations on a score and an exponential, with keys and values read once for those rows.
//
// Every score and every sum is taken in the order of dim and of keys, so that a row's result does not depend on the rows that are computed with it.

enum {
    KEY_BLOCK = 16,  // of every instruction set, since it is how memory is laid out
    TOGETHER  = 24,  // query rows, heads times tokens, that a thread takes, about
};

struct cached {
    const ggml_tensor *qkv, *k, *v;
    const int32_t *    rows;  // text and position of each
    int64_t            n, heads, kv, group, dim, padded, room;

    explicit cached(const thread & t)
        : qkv(t.src[0]), k(t.src[1]), v(t.src[2]), rows((const int32_t *) t.src[3]->data), n(qkv->ne[1]), heads(t.with->i[0]), kv(t.with->i[1]),
          group(heads / kv), dim(qkv->ne[0] / (heads + 2 * kv)), padded((dim + KEY_BLOCK - 1) / KEY_BLOCK * KEY_BLOCK), room(k->ne[0] / padded) {}

    int64_t text(int64_t row) const { return rows[2 * row]; }
    int64_t position(int64_t row) const { return rows[2 * row + 1]; }
    float * keys(int64_t text, int64_t head) const { return (float *) row(k, text * kv + head); }
    float * values(int64_t text, int64_t head) const { return (float *) row(v, text * kv + head); }
    const float * numbers_of(int64_t r, int64_t head) const { return (const float *) row(qkv, r) + head * dim; }

    // Puts a row's keys and values where they are kept.
    void keep(int64_t r) const {
        const int64_t at = position(r);
        for (int64_t h = 0; h < kv; h++) {
            const float * from = numbers_of(r, heads + h);
            float *       to   = keys(text(r), h) + at / KEY_BLOCK * KEY_BLOCK * padded + at % KEY_BLOCK;
            for (int64_t d = 0; d < dim; d++) {
                to[d * KEY_BLOCK] = from[d];
            }
            to = values(text(r), h) + at * padded;
            memcpy(to, numbers_of(r, heads + kv + h), dim * sizeof(float));
            memset(to + dim, 0, (padded - dim) * sizeof(float));
        }
    }

    // The end of the rows from r on that are taken together.
    int64_t next(int64_t r) const {
        const int64_t most = group < TOGETHER ? TOGETHER / group : 1;
        int64_t       end  = r + 1;
        while (end < n && end - r < most && text(end) == text(r)) {
            end++;
        }
        return end;
    }
};

// Memory for the rows that are taken together, row i being row i / group of them and head i % group of the KV head's.
struct cached_memory {
    float * q, * scores, * out;  // [rows][dim], [rows][stride], [rows][dim]
    int64_t stride;

    cached_memory(carver & c, const cached & a) {
        const int64_t most = a.group < TOGETHER ? TOGETHER : a.group;
        stride = a.room + KEY_BLOCK;
        q      = c.take<float>(most * a.padded);
        out    = c.take<float>(most * a.padded);
        scores = c.take<float>(most * stride);
    }
};

// Softmax of the first n numbers at s, with zeros behind up to `end`.
static void softmax(float * s, int64_t n, int64_t end) {
    vf    top  = splat(-INFINITY), sums = vf{};
    float most = -INFINITY;
    by_vectors(n, [&](int64_t i, auto some) {
        const vf v = load(s + i, some, -INFINITY);
        top        = v > top ? v : top;
    });
    for (int i = 0; i < LANES; i++) {
        most = top[i] > most ? top[i] : most;
    }
    by_vectors(n, [&](int64_t i, auto some) {
        const vf p = exp_of(load(s + i, some, -INFINITY) - splat(most));
        sums += p;
        store(s + i, p, some);
    });
    const vf by = splat(1 / sum(sums));
    by_vectors(n, [&](int64_t i, auto some) { store(s + i, load(s + i, some) * by, some); });
    memset(s + n, 0, (end - n) * sizeof(float));
}

// Rows r to end of the heads of a KV head.
static void attend(const cached & a, int64_t r, int64_t end, int64_t head, float scale, const cached_memory & m, ggml_tensor * dst) {
    const int64_t count = (end - r) * a.group, last = a.position(end - 1) + 1;
    for (int64_t i = 0; i < count; i++) {
        const float * from = a.numbers_of(r + i / a.group, head * a.group + i % a.group);
        for (int64_t d = 0; d < a.dim; d++) {
            m.q[i * a.padded + d] = scale * from[d];
        }
    }
    const float * k = a.keys(a.text(r), head);
    for (int64_t j = 0; j < last; j += KEY_BLOCK) {
        dense(count, KEY_BLOCK, a.dim, m.q, a.padded, k + j * a.padded, KEY_BLOCK, m.scores + j, m.stride, false);
    }
    for (int64_t i = 0; i < count; i++) {
        softmax(m.scores + i * m.stride, a.position(r + i / a.group) + 1, last);
    }
    dense(count, a.padded, last, m.scores, m.stride, a.values(a.text(r), head), a.padded, m.out, a.padded, false);
    for (int64_t i = 0; i < count; i++) {
        const int64_t at = (head * a.group + i % a.group) * a.dim;
        put(dst, row(dst, r + i / a.group) + at * (dst->type == BF16 ? 2 : 4), m.out + i * a.padded, a.dim);
    }
}

// Sources: qkv, keys, values, rows; parameters: heads, KV heads, scale.
static void attention_cached(const thread & t, ggml_tensor * dst) {
    const cached a(t);
    for (int64_t r; (r = t.take()) < a.n;) {
        a.keep(r);
    }
    t.barrier();
    carver              counted = { 0 };
    cached_memory(counted, a);
    carver              c = { (uintptr_t) t.scratch(counted.at) };
    const cached_memory m(c, a);
    int64_t             piece = t.take(), at = 0;
    for (int64_t r = 0, end; r < a.n; r = end) {
        end = a.next(r);
        for (int64_t h = 0; h < a.kv; h++, at++) {
            if (at == piece) {
                attend(a, r, end, h, t.with->f[0], m, dst);
                piece = t.take();
            }
        }
    }
}
