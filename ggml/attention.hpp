// Causal attention over a pack's samples, for each head with queries Q, keys K and values V as rows:
//
//   S = scale · Q Kᵀ,  P = softmax of S's rows,  O = P V
//   dV = Pᵀ dO,  dP = dO Vᵀ,  dS = P ⊙ (dP − rowsum(P ⊙ dP)),  dQ = scale · dS K,  dK = dSᵀ (scale · Q)
//
// With a cap, S = cap · T with T = tanh(scale · Q Kᵀ / cap), and dS ⊙ (1 − T²) takes the place of dS. With sinks, P is
// the softmax of S's rows and their head's sink, whose column is left out.
//
// The pack is cut into segments, a tree. A query sees all keys of its segment's ancestors, in order from the root, and
// its own segment's up to itself; with a window, the last of these.
//
// A thread takes the keys and values that a segment's queries see, of one KV head, out of the pack as float32:
// [keys][dim]. It goes through the queries of all heads that share them, COLUMNS rows at a time, row r being query r /
// group of the group's head r % group. Scores are kept transposed, [keys][COLUMNS], with queries side by side in
// vectors, so that the softmax needs no sums within a vector, and every product finds its operands as they lie: keys by
// turned queries for S, turned values by P for O, Pᵀ by the rows of dO for dV. Scores above the diagonal, and below the
// window, are left out up to the width of a vector.
//
// For `dim` numbers in a head, forward takes 4 dim operations on a score and backward 10 dim, and both one exponential.
// Keys are taken KEYS at a time, whose COLUMNS · KEYS scores stay in the first-level cache from a product to the next.
// The second-level cache gets a score once in forward and gives it back once; in backward it does so for S, P and dP.

enum {
    COLUMNS = 64,  // query rows in a block
    KEYS    = 64,  // keys that are taken together
    FEW     = 16,  // the same where some rows don't see all of them
    // query rows that forward takes at once, about: fewer share out better, more fetch keys and values less often
    TASK  = 512,
    AHEAD = 4,  // rows that are asked for early: a head's numbers lie too far apart for the processor to foresee
};

static inline int64_t whole(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

// c[R, V vectors] (+)= a[R, k] b[k, V vectors], all by rows with a stride: the products' tile without packing, and
// narrower where fewer columns are needed.
template <int R, int V, typename T>
static void dense(int64_t k, const float * a, int64_t lda, const T * b, int64_t ldb, float * c, int64_t ldc, bool add) {
    vf acc[R][V];
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < V; j++) {
            acc[i][j] = vf{};
        }
    }
    for (int64_t p = 0; p < k; p++, a++, b += ldb) {
        vf w[V];
#pragma GCC unroll 4
        for (int j = 0; j < V; j++) {
            w[j] = load(b + j * LANES);
        }
#pragma GCC unroll 8
        for (int i = 0; i < R; i++) {
            const vf x = splat(a[i * lda]);
#pragma GCC unroll 4
            for (int j = 0; j < V; j++) {
                acc[i][j] = fused(x, w[j], acc[i][j]);
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < V; j++) {
            float * to = c + i * ldc + j * LANES;
            store(to, add ? load(to) + acc[i][j] : acc[i][j]);
        }
    }
}

template <int V, typename T>
static void dense_rows(int64_t m, int64_t k, const float * a, int64_t lda, const T * b, int64_t ldb, float * c,
                       int64_t ldc, bool add) {
    for (; m >= ROWS; m -= ROWS, a += ROWS * lda, c += ROWS * ldc) {
        dense<ROWS, V>(k, a, lda, b, ldb, c, ldc, add);
    }
    switch (m) {
    case 1: dense<1, V>(k, a, lda, b, ldb, c, ldc, add); break;
    case 2: dense<2, V>(k, a, lda, b, ldb, c, ldc, add); break;
    case 3: dense<3, V>(k, a, lda, b, ldb, c, ldc, add); break;
    case 4: dense<4, V>(k, a, lda, b, ldb, c, ldc, add); break;
    case 5: dense<5, V>(k, a, lda, b, ldb, c, ldc, add); break;
    }
}

// c[m, n] (+)= a[m, k] b[k, n] for whole vectors of columns, with b of float or half.
template <typename T>
static void dense(int64_t m, int64_t n, int64_t k, const float * a, int64_t lda, const T * b, int64_t ldb, float * c,
                  int64_t ldc, bool add) {
    for (; n > 0; n -= PANEL, b += PANEL, c += PANEL) {
        switch (n < PANEL ? n / LANES : VECTORS) {
        case 1: dense_rows<1>(m, k, a, lda, b, ldb, c, ldc, add); break;
        case 2: dense_rows<2>(m, k, a, lda, b, ldb, c, ldc, add); break;
        case 3: dense_rows<(VECTORS < 3 ? VECTORS : 3)>(m, k, a, lda, b, ldb, c, ldc, add); break;
        case 4: dense_rows<VECTORS>(m, k, a, lda, b, ldb, c, ldc, add); break;
        }
    }
}

// to[n, m] = from[m, n]ᵀ, in whole vectors of both.
static void turn(int64_t m, int64_t n, const float * from, int64_t ldf, float * to, int64_t ldt) {
    for (int64_t i = 0; i < m; i += LANES) {
        for (int64_t j = 0; j < n; j += LANES) {
            transpose(from + i * ldf + j, ldf, to + j * ldt + i, ldt);
        }
    }
}

// Gives out parts of a piece of memory, or only counts them where there is none.
struct carver {
    uintptr_t at;

    template <typename T> T * take(int64_t n) {
        T * p = (T *) at;
        at += (n * sizeof(T) + 63) / 64 * 64;
        return p;
    }
};

// What an operation works on.
struct attention {
    struct segment {
        int32_t first, length, parent, past;
    };

    const ggml_tensor * qkv;
    const segment *     segments;
    int64_t             count, kv, dim, group;  // group: heads that share a KV head
    // padded: dim in whole vectors; longest: the most tokens up to a query, itself among them
    int64_t       padded, longest;
    int64_t       window;  // how many of them it sees
    float         scale, cap;
    const float * sinks;  // of each head, or NULL

    attention(const thread & t, const ggml_tensor * of, const ggml_tensor * tree, const ggml_tensor * sink)
        : qkv(of), segments((const segment *) tree->data), count(tree->ne[1]), kv(t.with->i[1]),
          dim(of->ne[0] / (t.with->i[0] + 2 * t.with->i[1])), group(t.with->i[0] / t.with->i[1]), padded(whole(dim)),
          longest(0), scale(t.with->f[0]), cap(t.with->f[1]), sinks(sink ? (const float *) sink->data : nullptr) {
        for (int64_t i = 0; i < count; i++) {
            const int64_t keys = segments[i].past + segments[i].length;
            longest            = keys > longest ? keys : longest;
        }
        window = t.with->i[2] > 0 ? t.with->i[2] : longest;
    }

    // The first key that the query of a segment sees.
    int64_t first_key(const segment & s, int64_t query) const {
        const int64_t key = s.past + query + 1 - window;
        return key > 0 ? key : 0;
    }

    int64_t keys_at(int64_t head) const { return kv * group + head; }  // in heads, from the beginning of a row
    int64_t values_at(int64_t head) const { return kv * (group + 1) + head; }

    // to = by · the numbers of one head in a row of t, filled up with zeros.
    void fetch(const ggml_tensor * t, int64_t i, int64_t head, float by, float * to) const {
        alignas(64) float buf[256];
        const size_t      size = t->type == BF16 ? 2 : 4;
        const char *      from = row(t, i) + head * dim * size;
        prefetch(from + AHEAD * t->nb[1], dim * size);
        for (int64_t d = 0; d < dim; d += 256) {
            const int64_t n      = dim - d < 256 ? dim - d : 256;
            const float * values = floats(t, from + d * size, buf, n);
            for (int64_t c = 0; c < n; c++) {
                to[d + c] = by * values[c];
            }
        }
        memset(to + dim, 0, (padded - dim) * sizeof(float));
    }

    // The keys and values of one segment, from key `from` on, go where its queries and its descendants' see them.
    void fetch_segment(const segment & s, int64_t from, int64_t head, float * k, float * v) const {
        for (int64_t i = from > s.past ? from - s.past : 0; i < s.length; i++) {
            fetch(qkv, s.first + i, keys_at(head), 1, k + (s.past + i) * padded);
            fetch(qkv, s.first + i, values_at(head), 1, v + (s.past + i) * padded);
        }
    }

    void fetch_ancestors(const segment & s, int64_t from, int64_t head, float * k, float * v) const {
        for (int64_t p = s.parent; p >= 0; p = segments[p].parent) {
            fetch_segment(segments[p], from, head, k, v);
        }
    }

    // Scores that a segment's queries from first to end need, about twice.
    int64_t cost(const segment & s, int64_t first, int64_t end) const {
        int64_t all = window - s.past;  // the first query that does not see all keys before it
        all         = all < first ? first : all > end ? end : all;
        return (all - first) * (2 * s.past + first + all) + (end - all) * 2 * window;
    }
};

// Query rows first … first + columns of a segment.
struct query_rows {
    const attention &          a;
    const attention::segment & s;
    int64_t                    first, columns, width;  // width: columns in whole vectors
    // the first key that the first row sees, and the end of those that the last row does
    int64_t begin, keys;

    query_rows(const attention & of, const attention::segment & segment, int64_t r, int64_t end)
        : a(of), s(segment), first(r), columns(end - r < COLUMNS ? end - r : COLUMNS), width(whole(columns)),
          begin(of.first_key(segment, r / of.group)), keys(s.past + (r + columns - 1) / a.group + 1) {}

    // How many of the rows, the first ones, are before a key.
    int64_t hidden(int64_t key) const {
        const int64_t n = (key - s.past) * a.group - first;
        return n < 0 ? 0 : n;
    }

    // The end of the rows whose windows a key is in.
    int64_t until(int64_t key) const {
        const int64_t n = hidden(key + a.window);
        return n < columns ? n : width;
    }

    // The end of the keys that are taken together from j on.
    int64_t next(int64_t j) const {
        // between them are those that all rows see
        const int64_t some = keys - a.window, all = s.past + first / a.group + 1;
        const int64_t end = j < some || j >= all ? j + FEW : all - j < KEYS + KEYS / 2 ? all : j + KEYS;
        return end < keys ? end : keys;
    }

    // The rows' numbers in t, times by: [COLUMNS][dim], and turned.
    void fetch(const ggml_tensor * t, int64_t head, float by, float * to, float * turned) const {
        for (int64_t c = 0; c < columns; c++) {
            a.fetch(t, s.first + (first + c) / a.group, head * a.group + (first + c) % a.group, by, to + c * a.padded);
        }
        memset(to + columns * a.padded, 0, (width - columns) * a.padded * sizeof(float));
        turn(width, a.padded, to, a.padded, turned, COLUMNS);
    }

    // The opposite: from `turned`, of which buf gets the rows.
    void put_back(ggml_tensor * t, int64_t head, const float * turned, float * buf) const {
        turn(a.padded, width, turned, COLUMNS, buf, a.padded);
        for (int64_t c = 0; c < columns; c++) {
            const int64_t at = (head * a.group + (first + c) % a.group) * a.dim;
            put(t, row(t, s.first + (first + c) / a.group) + at * (t->type == BF16 ? 2 : 4), buf + c * a.padded, a.dim);
        }
    }

    // Whether all rows see all keys from j to end.
    bool whole_block(int64_t j, int64_t end) const { return hidden(end - 1) == 0 && until(j) == width; }

    // to[keys][COLUMNS] = k · turned for the keys from j to end, anything where a row doesn't see the key.
    void against(int64_t j, int64_t end, const float * k, const float * turned, float * to) const {
        const bool all = whole_block(j, end);
        for (int64_t some; j < end; j += some) {
            some               = all || end - j < ROWS ? end - j : ROWS;
            const int64_t skip = hidden(j) / LANES * LANES, stop = whole(until(j + some - 1));
            dense(some, stop - skip, a.dim, k + j * a.padded, a.padded, turned + skip, COLUMNS, to + j * COLUMNS + skip,
                  COLUMNS, false);
        }
    }

    // of[keys][COLUMNS] = none where a row doesn't see the key, for the keys from j to end.
    void mask(int64_t j, int64_t end, float none, float * of) const {
        if (whole_block(j, end)) {
            return;
        }
        for (int64_t i = j; i < end; i++) {
            float * at = of + i * COLUMNS;
            for (int64_t c = 0, n = hidden(i); c < n; c++) {
                at[c] = none;
            }
            for (int64_t c = until(i); c < width; c++) {
                at[c] = none;
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

    // to[dim][COLUMNS] += turned[dim][keys] · p[keys][COLUMNS] for the keys from j to end.
    void sum_keys(int64_t j, int64_t end, const float * turned, int64_t stride, const float * p, float * to) const {
        const int64_t skip = hidden(j) / LANES * LANES, stop = whole(until(end - 1));
        dense(a.dim, stop - skip, end - j, turned + j, stride, p + j * COLUMNS + skip, COLUMNS, to + skip, COLUMNS,
              true);
    }

    // The sink of each row, −∞ where there is none.
    void sinks(int64_t head, float * to) const {
        for (int64_t c = 0; c < width; c++) {
            to[c] = a.sinks ? a.sinks[head * a.group + (first + c) % a.group] : -INFINITY;
        }
    }

    // The rows' scores, [keys][COLUMNS], of each row the greatest, its sink among them, and what the sink adds to the
    // sum of exponentials. With a cap, `slopes` gets 1 − T², unless it is NULL.
    void scores(int64_t head, const float * k, const float * turned, float * to, float * slopes, float * greatest,
                float * sums) const {
        sinks(head, greatest);
        sinks(head, sums);
        for (int64_t j = begin, end; j < keys; j = end) {
            end = next(j);
            against(j, end, k, turned, to);
            if (a.cap != 0) {
                cap(j, end, to, slopes);
            }
            mask(j, end, -INFINITY, to);
            for (int64_t c = 0; c < width; c += LANES) {
                vf m = load(greatest + c);
                for (int64_t i = j; i < end; i++) {
                    const vf x = load(to + i * COLUMNS + c);
                    m          = x > m ? x : m;
                }
                store(greatest + c, m);
            }
        }
        for (int64_t c = 0; c < width; c += LANES) {
            store(sums + c, exp_of(load(sums + c) - load(greatest + c)));
        }
    }

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

// A piece of work: larger ones are taken first.
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
    float * k, *v, *turned;  // [keys][dim] twice, and the values as [dim][keys]
    float * q, *qt;          // [COLUMNS][dim], [dim][COLUMNS]
    float * scores, *out;    // [keys][COLUMNS], [dim][COLUMNS]
    int64_t stride;

    forward_memory(carver & c, const attention & a, int64_t count) {
        // an odd number of vectors, so that rows don't meet in the same sets of the cache
        stride = whole(a.longest) | LANES;
        pieces = c.take<piece>(count);
        k      = c.take<float>((a.longest + LANES) * a.padded);
        v      = c.take<float>((a.longest + LANES) * a.padded);
        turned = c.take<float>(stride * a.padded);
        q      = c.take<float>(COLUMNS * a.padded);
        qt     = c.take<float>(COLUMNS * a.padded);
        scores = c.take<float>(a.longest * COLUMNS);
        out    = c.take<float>(COLUMNS * a.padded);
    }
};

static void attend(const query_rows & r, const forward_memory & m, int64_t head, ggml_tensor * dst) {
    alignas(64) float greatest[COLUMNS], sums[COLUMNS];
    r.fetch(r.a.qkv, head, r.a.scale, m.q, m.qt);
    r.scores(head, m.k, m.qt, m.scores, nullptr, greatest, sums);
    memset(m.out, 0, COLUMNS * r.a.padded * sizeof(float));
    for (int64_t j = r.begin, end; j < r.keys; j = end) {
        end = r.next(j);
        for (int64_t c = 0; c < r.width; c += LANES) {
            const vf top = load(greatest + c);
            vf       sum = load(sums + c);
            for (int64_t i = j; i < end; i++) {
                float *  at = m.scores + i * COLUMNS + c;
                const vf p  = exp_of(load(at) - top);
                sum += p;
                store(at, p);
            }
            store(sums + c, sum);
        }
        r.sum_keys(j, end, m.turned, m.stride, m.scores, m.out);
    }
    for (int64_t c = 0; c < r.width; c += LANES) {
        const vf by = splat(1) / load(sums + c);
        for (int64_t d = 0; d < r.a.dim; d++) {
            store(m.out + d * COLUMNS + c, load(m.out + d * COLUMNS + c) * by);
        }
    }
    r.put_back(dst, head, m.out, m.q);
}

// Sources: qkv, segments, sinks or NULL.
static void attention_forward(const thread & t, ggml_tensor * dst) {
    const attention a(t, t.src[0], t.src[1], t.src[2]);
    const int64_t   each  = TASK > a.group ? TASK / a.group : 1;
    int64_t         count = 0;
    for (int64_t i = 0; i < a.count; i++) {
        count += (a.segments[i].length + each - 1) / each;
    }
    carver counted = { 0 };
    forward_memory(counted, a, count);
    carver               c = { (uintptr_t) t.scratch(counted.at) };
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
        const piece &              of   = m.pieces[i / a.kv];
        const int64_t              head = i % a.kv;
        const attention::segment & s    = a.segments[of.index];
        const int64_t              from = a.first_key(s, of.first), aligned = from / LANES * LANES;
        a.fetch_ancestors(s, from, head, m.k, m.v);
        a.fetch_segment({ s.first, (int32_t) of.end, s.parent, s.past }, from, head, m.k, m.v);
        turn(whole(s.past + of.end) - aligned, a.padded, m.v + aligned * a.padded, a.padded, m.turned + aligned,
             m.stride);
        for (int64_t r = of.first * a.group, end = of.end * a.group; r < end; r += COLUMNS) {
            attend(query_rows(a, s, r, end), m, head, dst);
        }
    }
}

// Segments of one parent that backward takes together: until they have a quarter as many rows as their ancestors, so
// that the gradients of the ancestors' keys and values, which each family sums on its own, need little memory.
struct family {
    int64_t first, last, rows;    // segments, linked by backward_memory's next
    int64_t parent, past, parts;  // parts: where its sums are, [KV heads][past][2][dim]
};

// Memory of backward.
struct backward_memory {
    piece *  pieces;
    family * families;
    // of each segment: the next of its family, and the family that its next child joins
    int32_t *next, *open;
    float *  k, *v, *turned;          // [keys][dim] twice, and the keys as [dim][keys]
    float *  q, *qt, *g, *gt;         // of queries and of dO: [COLUMNS][dim], [dim][COLUMNS]
    float *  scores, *back, *slopes;  // [keys][COLUMNS]: S, then P; dP, then dS; 1 − T², or NULL without a cap
    float *  dk, *dv, *dq;            // [keys][dim] twice, [dim][COLUMNS]
    int64_t  stride;

    backward_memory(carver & c, const attention & a) {
        // as above; a segment that begins within a vector is turned in whole ones all the same
        stride   = whole(a.longest + LANES) | LANES;
        pieces   = c.take<piece>(a.count);
        families = c.take<family>(a.count);
        next     = c.take<int32_t>(a.count);
        open     = c.take<int32_t>(a.count);
        k        = c.take<float>((a.longest + LANES) * a.padded);
        v        = c.take<float>((a.longest + LANES) * a.padded);
        turned   = c.take<float>(stride * a.padded);
        q        = c.take<float>(COLUMNS * a.padded);
        qt       = c.take<float>(COLUMNS * a.padded);
        g        = c.take<float>(COLUMNS * a.padded);
        gt       = c.take<float>(COLUMNS * a.padded);
        scores   = c.take<float>(a.longest * COLUMNS);
        back     = c.take<float>(a.longest * COLUMNS);
        slopes   = a.cap != 0 ? c.take<float>(a.longest * COLUMNS) : nullptr;
        dk       = c.take<float>(a.longest * a.padded);
        dv       = c.take<float>(a.longest * a.padded);
        dq       = c.take<float>(COLUMNS * a.padded);
    }
};

static void attend_back(const query_rows & r, const backward_memory & m, int64_t head, const ggml_tensor * dout,
                        ggml_tensor * dst) {
    alignas(64) float greatest[COLUMNS], sums[COLUMNS], means[COLUMNS] = {};
    r.fetch(r.a.qkv, head, r.a.scale, m.q, m.qt);
    r.fetch(dout, head, 1, m.g, m.gt);
    r.scores(head, m.k, m.qt, m.scores, m.slopes, greatest, sums);
    for (int64_t j = r.begin, end; j < r.keys; j = end) {
        end = r.next(j);
        r.against(j, end, m.v, m.gt, m.back);
        r.mask(j, end, 0, m.back);
        for (int64_t c = 0; c < r.width; c += LANES) {
            const vf top = load(greatest + c);
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
        r.sum_keys(j, end, m.turned, m.stride, m.back, m.dq);
    }
    for (int64_t i = 0; i < COLUMNS * r.a.padded; i += LANES) {
        store(m.dq + i, load(m.dq + i) * splat(r.a.scale));
    }
    r.put_back(dst, head, m.dq, m.q);
}

// The gradients that a family's queries give: of its own keys and values into dst, of its ancestors' into parts.
static void family_back(const attention & a, const family & f, const backward_memory & m, int64_t head,
                        const ggml_tensor * dout, ggml_tensor * dst, float * parts) {
    const int64_t past = f.past;
    const int64_t from = a.first_key(a.segments[f.first], 0), aligned = from / LANES * LANES;
    a.fetch_ancestors(a.segments[f.first], from, head, m.k, m.v);
    turn(whole(past) - aligned, a.padded, m.k + aligned * a.padded, a.padded, m.turned + aligned, m.stride);
    memset(m.dk, 0, past * a.padded * sizeof(float));
    memset(m.dv, 0, past * a.padded * sizeof(float));
    for (int64_t i = f.first; i >= 0; i = m.next[i]) {
        const attention::segment & s = a.segments[i];
        a.fetch_segment(s, past, head, m.k, m.v);
        turn(whole(s.length), a.padded, m.k + past * a.padded, a.padded, m.turned + past, m.stride);
        memset(m.dk + past * a.padded, 0, s.length * a.padded * sizeof(float));
        memset(m.dv + past * a.padded, 0, s.length * a.padded * sizeof(float));
        for (int64_t r = 0, end = s.length * a.group; r < end; r += COLUMNS) {
            attend_back(query_rows(a, s, r, end), m, head, dout, dst);
        }
        for (int64_t j = 0; j < s.length; j++) {
            float * to = (float *) row(dst, s.first + j);
            memcpy(to + a.keys_at(head) * a.dim, m.dk + (past + j) * a.padded, a.dim * sizeof(float));
            memcpy(to + a.values_at(head) * a.dim, m.dv + (past + j) * a.padded, a.dim * sizeof(float));
        }
    }
    parts += (f.parts + head * past) * 2 * a.dim;
    for (int64_t j = 0; j < past; j++, parts += 2 * a.dim) {
        memcpy(parts, m.dk + j * a.padded, a.dim * sizeof(float));
        memcpy(parts + a.dim, m.dv + j * a.padded, a.dim * sizeof(float));
    }
}

// Sources: dout, qkv, segments, sinks or NULL.
static void attention_back(const thread & t, ggml_tensor * dst) {
    const ggml_tensor * dout = t.src[0];
    const attention     a(t, t.src[1], t.src[2], t.src[3]);
    carver              counted = { 0 };
    backward_memory(counted, a);
    carver                c = { (uintptr_t) t.scratch(counted.at) };
    const backward_memory m(c, a);

    int64_t count = 0, shared = 0;
    for (int64_t i = 0; i < a.count; i++) {
        const attention::segment & s = a.segments[i];
        int64_t                    f = s.parent < 0 ? -1 : m.open[s.parent];
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
    // Every segment with children adds up what its descendants' families have for it, in their order.
    for (int64_t i; (i = t.take()) < a.count * a.kv;) {
        const int64_t              of = i / a.kv, head = i % a.kv;
        const attention::segment & s = a.segments[of];
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
                float *dk = (float *) row(dst, s.first + j) + a.keys_at(head) * a.dim,
                      *dv = (float *) row(dst, s.first + j) + a.values_at(head) * a.dim;
                for (int64_t d = 0; d < a.dim; d++) {
                    dk[d] += part[d];
                    dv[d] += part[a.dim + d];
                }
            }
        }
    }
}
