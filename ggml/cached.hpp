// Causal attention of texts that grow: new rows of several texts see what the texts' caches hold, and join it.
//
// Keys lie in blocks of KEY_BLOCK, turned: [dim][KEY_BLOCK], so that the scores of a block are found side by side in
// vectors; values lie as rows of dim. `dim` is filled up to whole vectors. A thread takes some rows of a text, of all
// heads that share a KV head. It computes all their scores, their softmax, and their sums of values: 4 dim operations
// on a score and an exponential, with keys and values read once for those rows.
//
// With a window, a piece begins at the block of the first key that its first row sees; what its other rows don't see of
// it weighs 0.
//
// Every score and every sum is taken in the order of dim and of keys, and a row's softmax begins at its own first key,
// so that its result does not depend on the rows that are computed with it.

enum {
    KEY_BLOCK = 16,   // of every instruction set, since it is how memory is laid out
    TOGETHER  = 24,   // query rows, heads times tokens, that are taken together, about
    SPLIT     = 128,  // keys whose scores are a task
    WIDTH     = 16,   // numbers of a value whose sums are a task
};

template <typename T> struct cached {  // T: float or half
    const ggml_tensor *qkv, *k, *v;
    const int32_t *    rows;                                            // text and position of each
    int64_t            n, heads, kv, group, dim, padded, room, window;  // window: 0 is none
    float              scale, cap;
    const float *      sinks;  // of each head, or NULL

    explicit cached(const thread & t)
        : qkv(t.src[0]), k(t.src[1]), v(t.src[2]), rows((const int32_t *) t.src[3]->data), n(qkv->ne[1]),
          heads(t.with->i[0]), kv(t.with->i[1]), group(heads / kv), dim(qkv->ne[0] / (heads + 2 * kv)),
          padded((dim + KEY_BLOCK - 1) / KEY_BLOCK * KEY_BLOCK), room(k->ne[0] / padded), window(t.with->i[2]),
          scale(t.with->f[0]), cap(t.with->f[1]), sinks(t.src[4] ? (const float *) t.src[4]->data : nullptr) {}

    int64_t text(int64_t row) const { return rows[2 * row]; }
    int64_t position(int64_t row) const { return rows[2 * row + 1]; }
    T *     keys(int64_t text, int64_t head) const { return (T *) row(k, text * kv + head); }
    T *     values(int64_t text, int64_t head) const { return (T *) row(v, text * kv + head); }
    // The first key that the row sees.
    int64_t first_key(int64_t row) const {
        return window > 0 && position(row) >= window ? position(row) + 1 - window : 0;
    }
    const float * numbers_of(int64_t r, int64_t head) const { return (const float *) row(qkv, r) + head * dim; }

    // Puts a row's keys and values where they are kept.
    void keep(int64_t r) const {
        const int64_t at = position(r);
        for (int64_t h = 0; h < kv; h++) {
            const float * from = numbers_of(r, heads + h);
            T *           to   = keys(text(r), h) + at / KEY_BLOCK * KEY_BLOCK * padded + at % KEY_BLOCK;
            for (int64_t d = 0; d < dim; d++) {
                assign(to[d * KEY_BLOCK], from[d]);
            }
            to   = values(text(r), h) + at * padded;
            from = numbers_of(r, heads + kv + h);
            for (int64_t d = 0; d < padded; d++) {
                assign(to[d], d < dim ? from[d] : 0);
            }
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

// Softmax of the first n numbers at s, with zeros behind up to `end`. With a cap they become cap · tanh(s / cap)
// before. The sink, −∞ for none, is one number more, whose place is not here.
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
    const float most = greatest(top);
    by_vectors(n, [&](int64_t i, auto some) {
        const vf p = exp_of(load(s + i, some, -INFINITY) - splat(most));
        sums += p;
        store(s + i, p, some);
    });
    const vf by = splat(1 / (sum(sums) + std::exp(sink - most)));
    by_vectors(n, [&](int64_t i, auto some) { store(s + i, load(s + i, some) * by, some); });
    memset(s + n, 0, (end - n) * sizeof(float));
}

// Some rows of one text and one KV head, row i being row first + i / group of them and head i % group of the KV head's.
template <typename T> struct cached_piece {
    int64_t first, end, head, count, begin, keys;  // keys from `begin` to `keys`
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
            const float * from = a.numbers_of(first + i / a.group, head * a.group + i % a.group);
            for (int64_t d = 0; d < a.dim; d++) {
                q[i * a.padded + d] = a.scale * from[d];
            }
        }
    }

    // Scores of keys from j to end.
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

    // Sums of numbers d to d + WIDTH of the values.
    void add_values(const cached<T> & a, int64_t d, ggml_tensor * dst) const {
        alignas(64) float out[ROWS][WIDTH];
        const int64_t     n = a.dim - d < WIDTH ? a.dim - d : WIDTH;
        for (int64_t i = 0; i < count; i += ROWS) {
            const int64_t some = count - i < ROWS ? count - i : ROWS;
            dense(some, WIDTH, keys - begin, scores + i * stride, stride,
                  a.values(a.text(first), head) + begin * a.padded + d, a.padded, out[0], WIDTH, false);
            for (int64_t r = 0; r < some; r++) {
                const int64_t at = (head * a.group + (i + r) % a.group) * a.dim + d;
                put(dst, row(dst, first + (i + r) / a.group) + at * (dst->type == BF16 ? 2 : 4), out[r], n);
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

// One piece after the other by all threads: of few rows, the keys and values are shared out.
template <typename T> static void attend_together(const thread & t, const cached<T> & a, ggml_tensor * dst) {
    carver counted = { 0 };
    each_piece(a, [&](cached_piece<T> p) { p.place(counted, a); });
    if (t.ith == 0) {
        t.parts(counted.at);
    }
    t.barrier();
    // Calls f(piece, i) for task i of each piece's, whose number count gives.
    const auto tasks = [&](auto count, auto f) {
        carver  c    = { (uintptr_t) t.parts(0) };
        int64_t mine = t.take(), at = 0;
        each_piece(a, [&](cached_piece<T> p) {
            p.place(c, a);
            for (const int64_t n = at + count(p), first = at; at < n; at++) {
                if (at == mine) {
                    f(p, at - first);
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

// A piece for each thread at a time.
template <typename T> static void attend_apart(const thread & t, const cached<T> & a, ggml_tensor * dst) {
    int64_t mine = t.take(), at = 0;
    each_piece(a, [&](cached_piece<T> p) {
        if (at++ != mine) {
            return;
        }
        carver counted = { 0 };
        p.place(counted, a);
        carver c = { (uintptr_t) t.scratch(counted.at) };
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

// Sources: qkv, keys, values, rows, sinks or NULL; parameters: heads, KV heads, window; scale, cap.
template <typename T> static void attend_cached(const thread & t, ggml_tensor * dst) {
    const cached<T> a(t);
    for (int64_t r; (r = t.take()) < a.n;) {
        a.keep(r);
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

static void attention_cached(const thread & t, ggml_tensor * dst) {
    if (t.src[1]->type == F32) {
        attend_cached<float>(t, dst);
    } else {
        attend_cached<half>(t, dst);
    }
}
