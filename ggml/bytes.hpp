// Products of quantised weights with activations that are rounded to 8 bits, for generation. In every block of 32, x ≈
// e · r with whole numbers |r| ≤ 127 and e = max |x| / 127; of the weights' w = d · q + m nothing is rounded:
//
//   y = Σ_blocks (d · e) Σ q · r + m · (e Σ r)
//
// The inner sums are exact, the outer one is taken block after block. So a result does not depend on the rows, or
// columns, that are computed with it.
//
// A strip of 16 rows of W is turned while its numbers are bytes, 1,024 numbers of each at a time, so that it stays in
// the first-level cache: 4 numbers of 8 rows are side by side in 32 bytes, and meet 4 numbers of x, everywhere the
// same. W is read once, and for few rows of x memory bounds that. The matrices of the shared pair, which are read many
// times a token, lie turned in memory.

enum {
    BYTE_ROWS   = 4,          // of x that a tile takes
    TIMES       = 2,          // vectors of 8 columns in a strip
    BYTE_COLS   = 8 * TIMES,  // columns of a strip
    BYTE_BLOCKS = 32,         // that are turned at a time
};

// 16 numbers times `by`, |x by| ≤ 127, to the nearest whole ones, ties to even; gives their sum.
static inline int32_t bytes_of(const float * x, float by, int8_t * to) {
#if LANES >= 8 && defined(__x86_64__)
    const __m256  scale = _mm256_set1_ps(by);
    const __m256i a     = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), scale)),
                  b     = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8), scale));
    const __m256i two   = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
    _mm_storeu_si128((__m128i *) to, _mm_packs_epi16(_mm256_castsi256_si128(two), _mm256_extracti128_si256(two, 1)));
    const __m256i all = _mm256_add_epi32(a, b);
    __m128i       sum = _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    sum               = _mm_add_epi32(sum, _mm_unpackhi_epi64(sum, sum));
    return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 1)));
#else
    int32_t sum = 0;
    for (int i = 0; i < 16; i++) {
        const float v = x[i] * by;
        to[i]         = v == v ? (int8_t) nearbyintf(v) : 0;
        sum += to[i];
    }
    return sum;
#endif
}

// Activations as bytes: of each row the blocks' numbers, and of each block e and e Σ r, the latter also of its halves.
struct rounded {
    int64_t  blocks;
    int8_t * r;
    float (*of)[4];  // e, sum, sum of the first half, of the second

    static size_t bytes(int64_t rows, int64_t blocks) { return rows * blocks * (32 + 4 * sizeof(float)); }

    rounded(void * at, int64_t rows, int64_t n)
        : blocks(n), r((int8_t *) at), of((float (*)[4])((char *) at + rows * blocks * 32)) {}

    const int8_t * numbers(int64_t row) const { return r + row * blocks * 32; }
    const float (*scales(int64_t row) const)[4] { return of + row * blocks; }

    void round(int64_t row, const float * x) const {
        int8_t * to   = r + row * blocks * 32;
        float (*s)[4] = of + row * blocks;
        for (int64_t b = 0; b < blocks; b++, x += 32, to += 32, s++) {
            vf top = vf{}, odd = vf{};
            for (int i = 0; i < 32; i += LANES) {
                const vf v = load(x + i), size = v < 0 ? -v : v;
                top = size > top ? size : top;
                odd += v * 0;  // NaN where there is NaN or infinity
            }
            const float most = greatest(top), e = most / 127 + in_pairs(odd), by = most > 0 ? 127 / most : 0;
            int32_t     sums[2] = {};
            for (int half = 0; half < 2; half++) {
                sums[half] = bytes_of(x + 16 * half, by, to + 16 * half);
            }
            (*s)[0] = e;
            // of NaN and infinities these are any numbers, and e is NaN
            (*s)[1] = e * ((float) sums[0] + (float) sums[1]);
            (*s)[2] = e * sums[0];
            (*s)[3] = e * sums[1];
        }
    }
};

// What the numbers q of a type are: HALVES 2 where those of a block's halves have scales of their own, SUM how many
// products of two may be added up in 16 bits.
template <unsigned TYPE> struct byte_kind {
    enum {
        SIGNED = TYPE == Q8_0,
        HALVES = TYPE == Q6_K ? 2 : 1,
        SUM = SIGNED                                   ? 1
        : TYPE == Q6_K                                 ? 2
        : TYPE == Q5_0 || TYPE == Q5_1 || TYPE == Q5_K ? 4
                                                       : 8,
    };
};

#if LANES >= 8 && defined(__x86_64__)

// A block of a strip that is turned.
template <typename W> struct turned_columns {
    const W & w;
    int64_t   b;

    __m256i q(int group, int j) const {
        __m256i v = _mm256_load_si256((const __m256i *) w.q(b, j, group));
        in_register(v);
        return v;
    }
    __m256 d(int half, int j) const { return w.d(b, half, j); }
    __m256 m(int half, int j) const { return _mm256_load_ps(w.m(b, half, j)); }
};

#endif

// Some blocks of a strip, turned.
template <int HALVES> struct turned_strip {
    enum { BESIDE = TIMES };
    alignas(64) int8_t bytes[BYTE_BLOCKS][TIMES][8][32];  // 4 numbers of each of 8 columns
    alignas(64) float scales[BYTE_BLOCKS][HALVES][BYTE_COLS], minima[BYTE_BLOCKS][HALVES][BYTE_COLS];

    const int8_t * q(int64_t b, int j, int group) const { return bytes[b][j][group]; }
    const float *  m(int64_t b, int half, int j) const { return minima[b][half] + 8 * j; }
#if LANES >= 8 && defined(__x86_64__)
    __m256                       d(int64_t b, int half, int j) const { return _mm256_load_ps(scales[b][half] + 8 * j); }
    turned_columns<turned_strip> columns(int64_t b, int) const { return { *this, b }; }
#else
    float d(int64_t b, int half, int j, int i) const { return scales[b][half][8 * j + i]; }
#endif
};

// A strip of Q8_0 that lies turned in memory: of each block the bytes, then the scales. The whole takes the room of its
// rows as they are otherwise.
struct lying_strip {
    enum { BESIDE = TIMES, SIZE = BYTE_COLS * 34 };
    const char * at;

    const int8_t * q(int64_t b, int j, int group) const {
        return (const int8_t *) at + b * SIZE + (8 * j + group) * 32;
    }
    const float * m(int64_t, int, int) const { return nullptr; }
    const char *  halves(int64_t b, int j) const { return at + b * SIZE + 32 * BYTE_COLS + 16 * j; }
#if LANES >= 8 && defined(__x86_64__)
    __m256 d(int64_t b, int, int j) const { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) halves(b, j))); }
    turned_columns<lying_strip> columns(int64_t b, int) const { return { *this, b }; }
#else
    float d(int64_t b, int, int j, int i) const { return half_to_float(halves(b, j) + 2 * i); }
#endif
};

#if LANES >= 8 && defined(__x86_64__)

// 4 words of 8 rows, of rows i and i + 4 in r[i], become word i of all rows.
static inline void turn_words(__m256i (&r)[4]) {
    const __m256i a = _mm256_unpacklo_epi32(r[0], r[1]), b = _mm256_unpackhi_epi32(r[0], r[1]),
                  c = _mm256_unpacklo_epi32(r[2], r[3]), d = _mm256_unpackhi_epi32(r[2], r[3]);
    r[0] = _mm256_unpacklo_epi64(a, c);
    r[1] = _mm256_unpackhi_epi64(a, c);
    r[2] = _mm256_unpacklo_epi64(b, d);
    r[3] = _mm256_unpackhi_epi64(b, d);
}

static inline __m256i beside(const void * a, const void * b) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *) a)),
                                   _mm_loadu_si128((const __m128i *) b), 1);
}

#endif

// Turns 8 words of 4 bytes of 8 rows.
static inline void turn_words(const bytes (&from)[8][2], int8_t (*to)[32]) {
#if LANES >= 8 && defined(__x86_64__)
    for (int half = 0; half < 2; half++) {
        __m256i r[4];
        for (int i = 0; i < 4; i++) {
            r[i] = beside(&from[i][half], &from[i + 4][half]);
        }
        turn_words(r);
        memcpy(to[4 * half], r, sizeof r);
    }
#else
    for (int word = 0; word < 8; word++) {
        for (int i = 0; i < 8; i++) {
            memcpy(to[word] + 4 * i, (const char *) from[i] + 4 * word, 4);
        }
    }
#endif
}

// Turns part … of the block that lies at offset in each of 8 rows. The 6 bits of Q6_K are taken as unsigned.
template <unsigned TYPE, int HALVES>
static inline void turn_any(const char * const * rows, int64_t offset, int part, int8_t (*to)[32],
                            float (*d)[BYTE_COLS], float (*m)[BYTE_COLS]) {
    bytes q[8][2];
    for (int i = 0; i < 8; i++) {
        const quants of = quants_of(TYPE, rows[i] + offset, part);
        for (int half = 0; half < HALVES; half++) {
            d[half][i] = of.d[half];
            m[half][i] = TYPE == Q6_K ? -32 * of.d[half] : of.m[half];
        }
        q[i][0] = TYPE == Q6_K ? of.q[0] + 32 : of.q[0];
        q[i][1] = TYPE == Q6_K ? of.q[1] + 32 : of.q[1];
    }
    turn_words(q, to);
}

#if LANES >= 8 && defined(__x86_64__)

// 8 rows of a block that has numbers of 4 bits, two in a byte, or of 8, behind a scale and perhaps a minimum, turned in
// registers; the 4-bit ones stay two in a byte.
template <unsigned TYPE> struct plain_columns {
    enum { FIRST = TYPE == Q4_1 ? 4 : 2, HALVES = TYPE == Q8_0 ? 2 : 1 };
    __m256i words[HALVES][4];
    __m256  scales, minima;

    plain_columns(const char * const * rows, int64_t offset) {
#pragma GCC unroll 2
        for (int half = 0; half < HALVES; half++) {
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                words[half][i] = beside(rows[i] + offset + FIRST + 16 * half, rows[i + 4] + offset + FIRST + 16 * half);
            }
            turn_words(words[half]);
        }
        const auto at = [&](int i) {
            int32_t two;
            memcpy(&two, rows[i] + offset, 4);
            return two;
        };
        const __m256i two = _mm256_set_epi32(at(7), at(6), at(5), at(4), at(3), at(2), at(1), at(0)),
                      low = _mm256_set1_epi32(0xffff);
        const __m256i all =
            _mm256_permute4x64_epi64(_mm256_packus_epi32(_mm256_and_si256(two, low), _mm256_srli_epi32(two, 16)), 0xd8);
        scales = _mm256_cvtph_ps(_mm256_castsi256_si128(all));
        minima = TYPE == Q4_1 ? _mm256_cvtph_ps(_mm256_extracti128_si256(all, 1))
                              : _mm256_mul_ps(scales, _mm256_set1_ps(-8));
    }

    __m256i q(int group, int) const {
        const __m256i four = words[group / 4 % HALVES][group % 4];
        return TYPE == Q8_0 ? four
                            : _mm256_and_si256(group < 4 ? four : _mm256_srli_epi16(four, 4), _mm256_set1_epi8(15));
    }
    __m256 d(int, int) const { return scales; }
    __m256 m(int, int) const { return minima; }

    void keep(int8_t (*to)[32], float * d, float * m) const {
#pragma GCC unroll 8
        for (int group = 0; group < 8; group++) {
            _mm256_store_si256((__m256i *) to[group], q(group, 0));
        }
        _mm256_store_ps(d, scales);
        _mm256_store_ps(m, minima);
    }
};

#endif

static constexpr bool is_plain(unsigned type) { return type == Q4_0 || type == Q4_1 || type == Q8_0; }

// Asks for bytes start … end of what lies at `next`.
static inline void ask(const char * next, int64_t start, int64_t end) {
    start &= -64;
    prefetch(next + start, end - start);
}

// Turns blocks first … first + n of BYTE_COLS rows, and asks meanwhile for as many bytes from `next` on, which the
// processor would not foresee.
template <unsigned TYPE>
__attribute__((flatten)) static void turn_strip(const char * const * rows, size_t size, int64_t first, int64_t n,
                                                const char * next, turned_strip<byte_kind<TYPE>::HALVES> & to) {
    enum {
        HALVES = byte_kind<TYPE>::HALVES,
        PARTS = TYPE == Q4_K || TYPE == Q5_K || TYPE == Q6_K ? 8 : 1,
    };
    for (int64_t b = 0; b < n; b++) {
        const int64_t offset = (first + b) / PARTS * size;
        ask(next, (first + b) * size * BYTE_COLS / PARTS, (first + b + 1) * size * BYTE_COLS / PARTS);
        for (int j = 0; j < BYTE_COLS; j += 8) {
#if LANES >= 8 && defined(__x86_64__)
            if (is_plain(TYPE)) {
                plain_columns<TYPE>(rows + j, offset)
                    .keep(to.bytes[b][j / 8], to.scales[b][0] + j, to.minima[b][0] + j);
                continue;
            }
#endif
            turn_any<TYPE, HALVES>(rows + j, offset, (int) ((first + b) % PARTS), to.bytes[b][j / 8],
                                   (float (*)[BYTE_COLS])(to.scales[b][0] + j),
                                   (float (*)[BYTE_COLS])(to.minima[b][0] + j));
        }
    }
}

#if LANES >= 8 && defined(__x86_64__)

// A strip as it lies, turned in registers: for few rows of x, which need it no second time.
template <unsigned TYPE> struct passing_strip {
    enum { BESIDE = 1, SIZE = TYPE == Q4_0 ? 18 : TYPE == Q4_1 ? 20 : 34 };
    const char * const * rows;
    const char *         next;  // is asked for meanwhile

    plain_columns<TYPE> columns(int64_t b, int j) const {
        ask(next, (b * TIMES + j) * SIZE * 8, (b * TIMES + j + 1) * SIZE * 8);
        return { rows + 8 * j, b * SIZE };
    }
};

// c[i][j] += Σ over n blocks of a strip for R rows of x, of which they are the blocks from `first` on; c has BYTE_COLS
// numbers a row.
template <typename KIND, int R, typename W>
__attribute__((flatten)) static void meet(const W & w, int64_t n, const rounded & x, int64_t row, int64_t first,
                                          float * c) {
    enum { GROUPS = 8 / KIND::HALVES };
    const __m256i  ones = _mm256_set1_epi16(1);
    const int8_t * r[R];
    const float (*of[R])[4];
    __m256 acc[R][TIMES];
#pragma GCC unroll 4
    for (int i = 0; i < R; i++) {
        r[i]  = x.numbers(row + i) + first * 32;
        of[i] = x.scales(row + i) + first;
#pragma GCC unroll 2
        for (int j = 0; j < TIMES; j++) {
            acc[i][j] = _mm256_loadu_ps(c + i * BYTE_COLS + 8 * j);
        }
    }
    for (int64_t b = 0; b < n; b++) {
#pragma GCC unroll 2
        for (int j0 = 0; j0 < TIMES; j0 += W::BESIDE) {
            const auto columns = w.columns(b, j0);
#pragma GCC unroll 2
            for (int half = 0; half < KIND::HALVES; half++) {
                __m256i sums[R][W::BESIDE], some[R][W::BESIDE];
#pragma GCC unroll 8
                for (int g = 0; g < GROUPS; g++) {
                    const int at = half * GROUPS + g;
                    __m256i   q[W::BESIDE], size[W::BESIDE];
#pragma GCC unroll 2
                    for (int j = 0; j < W::BESIDE; j++) {
                        q[j]    = columns.q(at, j);
                        size[j] = KIND::SIGNED ? _mm256_abs_epi8(q[j]) : q[j];
                    }
#pragma GCC unroll 4
                    for (int i = 0; i < R; i++) {
                        int32_t four;
                        memcpy(&four, r[i] + b * 32 + at * 4, 4);
                        const __m256i by = _mm256_set1_epi32(four);
#pragma GCC unroll 2
                        for (int j = 0; j < W::BESIDE; j++) {
                            const __m256i two =
                                _mm256_maddubs_epi16(size[j], KIND::SIGNED ? _mm256_sign_epi8(by, q[j]) : by);
                            some[i][j] = g % KIND::SUM == 0 ? two : _mm256_add_epi16(some[i][j], two);
                            if (g % KIND::SUM == KIND::SUM - 1) {
                                const __m256i whole = _mm256_madd_epi16(some[i][j], ones);
                                sums[i][j]          = g < KIND::SUM ? whole : _mm256_add_epi32(sums[i][j], whole);
                                in_register(sums[i][j]);  // GCC would keep all eight, and add them up in the end
                            }
                        }
                    }
                }
#pragma GCC unroll 2
                for (int j = 0; j < W::BESIDE; j++) {
                    const __m256 d = columns.d(half, j);
#pragma GCC unroll 4
                    for (int i = 0; i < R; i++) {
                        __m256 & sum = acc[i][j0 + j];
                        sum          = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[i][j]),
                                                       _mm256_mul_ps(d, _mm256_set1_ps(of[i][b][0])), sum);
                        if (!KIND::SIGNED) {
                            sum = _mm256_fmadd_ps(columns.m(half, j),
                                                  _mm256_set1_ps(of[i][b][KIND::HALVES == 2 ? 2 + half : 1]), sum);
                        }
                    }
                }
            }
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < R; i++) {
#pragma GCC unroll 2
        for (int j = 0; j < TIMES; j++) {
            _mm256_storeu_ps(c + i * BYTE_COLS + 8 * j, acc[i][j]);
        }
    }
}

#else

template <typename KIND, int R, typename W>
static void meet(const W & w, int64_t n, const rounded & x, int64_t row, int64_t first, float * c) {
    enum { GROUPS = 8 / KIND::HALVES };
    for (int i = 0; i < R; i++, c += BYTE_COLS) {
        const int8_t * r     = x.numbers(row + i) + first * 32;
        const float (*of)[4] = x.scales(row + i) + first;
        for (int64_t b = 0; b < n; b++) {
            for (int half = 0; half < KIND::HALVES; half++) {
                for (int j = 0; j < BYTE_COLS; j++) {
                    int32_t sum = 0;
                    for (int k = 4 * half * GROUPS; k < 4 * (half + 1) * GROUPS; k++) {
                        sum += w.q(b, j / 8, k / 4)[j % 8 * 4 + k % 4] * r[b * 32 + k];
                    }
                    c[j] += sum * (w.d(b, half, j / 8, j % 8) * of[b][0]);
                    if (!KIND::SIGNED) {
                        c[j] += w.m(b, half, j / 8)[j % 8] * of[b][KIND::HALVES == 2 ? 2 + half : 1];
                    }
                }
            }
        }
    }
}

#endif

template <typename KIND, typename W> static void meet_all(const W & w, int64_t n, const rounded & x, int64_t rows,
                                                          int64_t first, float * c) {
    enum { R = KIND::SUM == 1 || KIND::SUM == 8 ? BYTE_ROWS : BYTE_ROWS / 2 };  // as many as have room in registers
    int64_t i = 0;
    for (; i + R <= rows; i += R) {
        meet<KIND, R>(w, n, x, i, first, c + i * BYTE_COLS);
    }
    for (; i + 2 <= rows; i += 2) {
        meet<KIND, 2>(w, n, x, i, first, c + i * BYTE_COLS);
    }
    if (i < rows) {
        meet<KIND, 1>(w, n, x, i, first, c + i * BYTE_COLS);
    }
}

// meet_all with a strip that is turned in registers, where its type can be.
template <unsigned TYPE> static bool pass(const char * const * rows, const char * next, int64_t n, const rounded & x,
                                          int64_t count, float * c) {
#if LANES >= 8 && defined(__x86_64__)
    if constexpr (is_plain(TYPE)) {
        meet_all<byte_kind<TYPE>>(passing_strip<TYPE>{ rows, next }, n, x, count, 0, c);
        return true;
    }
#endif
    return false;
}

// Calls use(row, rows, column, columns, c, ldc) for every part of the product, as multiply does; turned tells whether W
// lies in strips.
template <unsigned TYPE, typename F> static void multiply_bytes(const thread & t, const product & p, bool turned,
                                                                F use) {
    typedef byte_kind<TYPE>            kind;
    typedef turned_strip<kind::HALVES> strip;
    const ggml_tensor *                w = p.b.t;
    const int64_t blocks = p.k / 32, strips = (p.n + BYTE_COLS - 1) / BYTE_COLS, fair = strips / (4 * t.nth),
                  width = fair < 1   ? 1
                          : fair > 8 ? 8
                                     : fair;
    const bool    alone = p.m <= 2;  // every thread rounds x for itself, and waits for none
    const size_t  own   = alone ? (rounded::bytes(p.m, blocks) + 63) / 64 * 64 : 0;
    if (!alone) {
        if (t.ith == 0) {
            t.shared(rounded::bytes(p.m, blocks));
        }
        t.barrier();
    }
    char *        memory = (char *) t.scratch(own + sizeof(strip) + (p.m * BYTE_COLS + p.k) * sizeof(float));
    strip &       some   = *(strip *) (memory + own);
    float *       c = (float *) (memory + own + sizeof(strip)), *buf = c + p.m * BYTE_COLS;
    const rounded x(alone ? memory : t.shared(0), p.m, blocks);
    for (int64_t i = 0; (alone ? i : (i = t.take())) < p.m; i++) {
        const int64_t tokens = p.m / p.layers;
        const float * from   = floats(p.a.t, p.line(i % tokens), buf, p.k);
        if (p.s) {
            const float * s = p.s + i / tokens * p.step;
            for (int64_t k = 0; k < p.k; k++) {
                buf[k] = from[k] * s[k];
            }
            from = buf;
        }
        x.round(i, from);
    }
    if (!alone) {
        t.barrier();
    }
    for (int64_t s; (s = t.take() * width) < strips;) {
        for (const int64_t end = s + width < strips ? s + width : strips; s < end; s++) {
            const int64_t n0 = s * BYTE_COLS, cols = p.n - n0 < BYTE_COLS ? p.n - n0 : BYTE_COLS;
            const char *  rows[BYTE_COLS];
            for (int64_t j = 0; j < BYTE_COLS; j++) {  // those beyond the last are the last once more
                rows[j] = row(w, n0 + (j < cols ? j : cols - 1));
            }
            // in all likelihood
            const char * next = row(w, (s + 1 < end ? s + 1 : end + (t.nth - 1) * width) * BYTE_COLS);
            memset(c, 0, p.m * BYTE_COLS * sizeof(float));
            if (turned) {
                meet_all<byte_kind<Q8_0>>(lying_strip{ row(w, n0) }, blocks, x, p.m, 0, c);
                use(0, p.m, n0, cols, c, BYTE_COLS);
                continue;
            }
            if (alone && pass<TYPE>(rows, next, blocks, x, p.m, c)) {
                use(0, p.m, n0, cols, c, BYTE_COLS);
                continue;
            }
            for (int64_t b = 0; b < blocks; b += BYTE_BLOCKS) {
                const int64_t n = blocks - b < BYTE_BLOCKS ? blocks - b : BYTE_BLOCKS;
                turn_strip<TYPE>(rows, ggml_type_size(w->type), b, n, next, some);
                meet_all<kind>(some, n, x, p.m, b, c);
            }
            use(0, p.m, n0, cols, c, BYTE_COLS);
        }
    }
}

template <typename F> static void multiply_bytes(const thread & t, const product & p, bool turned, F use) {
    switch (p.b.t->type) {
    case Q4_0: multiply_bytes<Q4_0>(t, p, turned, use); break;
    case Q4_1: multiply_bytes<Q4_1>(t, p, turned, use); break;
    case Q5_0: multiply_bytes<Q5_0>(t, p, turned, use); break;
    case Q5_1: multiply_bytes<Q5_1>(t, p, turned, use); break;
    case Q8_0: multiply_bytes<Q8_0>(t, p, turned, use); break;
    case Q4_K: multiply_bytes<Q4_K>(t, p, turned, use); break;
    case Q5_K: multiply_bytes<Q5_K>(t, p, turned, use); break;
    case Q6_K: multiply_bytes<Q6_K>(t, p, turned, use); break;
    }
}
