// Quantised blocks as floats: the most frequent types by vectors, the others by ggml. All of these are sums and
// products that float32 holds exactly, but for the last sum with a minimum, so that the numbers are those of ggml to
// the bit.

static inline float half_to_float(const char * p) {
    uint16_t h;
    memcpy(&h, p, 2);
#if LANES >= 8
    return _cvtsh_ss(h);
#else
    // The exponent is moved by multiplying, which makes subnormal numbers right as well; infinity and NaN keep theirs.
    uint32_t bits = (uint32_t) (h & 0x7fff) << 13, sign = (uint32_t) (h & 0x8000) << 16;
    float    f;
    if ((h & 0x7c00) == 0x7c00) {
        bits |= 0x7f800000;
        memcpy(&f, &bits, 4);
    } else {
        memcpy(&f, &bits, 4);
        f *= 0x1p112f;
    }
    memcpy(&bits, &f, 4);
    bits |= sign;
    memcpy(&f, &bits, 4);
    return f;
#endif
}

// The same for 16 that lie side by side.
static inline void halves_to_floats(const uint16_t * from, float * to) {
#if LANES == 16 && defined(__x86_64__)
    store(to, (vf) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) from)));
#elif LANES == 8 && defined(__x86_64__)
    store(to, (vf) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) from)));
    store(to + 8, (vf) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) (from + 8))));
#else
    for (int i = 0; i < 16; i++) {
        to[i] = half_to_float((const char *) (from + i));
    }
#endif
}

// A 16-bit float.
struct half {
    uint16_t bits;
};

static inline vf load(const half * p) {
#if LANES == 16 && defined(__x86_64__)
    return (vf) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p));
#elif LANES == 8 && defined(__x86_64__)
    return (vf) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p));
#else
    vf v;
    for (int i = 0; i < LANES; i++) {
        v[i] = half_to_float((const char *) (p + i));
    }
    return v;
#endif
}

static inline void assign(half & to, float x) {
#if LANES >= 8 && defined(__x86_64__)
    to.bits = (uint16_t) _cvtss_sh(x, 0);
#else
    to.bits = ggml_fp32_to_fp16(x);
#endif
}

static inline void assign(float & to, float x) { to = x; }

// LANES signed bytes as floats.
static inline vf widened(const int8_t * p) {
#if LANES == 16 && defined(__x86_64__)
    return (vf) _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *) p)));
#elif LANES == 8 && defined(__x86_64__)
    return (vf) _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *) p)));
#else
    vf v;
    for (int i = 0; i < LANES; i++) {
        v[i] = p[i];
    }
    return v;
#endif
}

typedef uint8_t bytes __attribute__((vector_size(16)));

static inline bytes load_bytes(const char * p) {
    bytes v;
    memcpy(&v, p, sizeof v);
    return v;
}

// Bit i of 16 bits, as value in byte i.
static inline bytes spread(uint16_t bits, uint8_t value) {
    const bytes which = { 1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128 };
    bytes       v;
    memset(&v, bits & 255, 8);
    memset((char *) &v + 8, bits >> 8, 8);
    return (bytes) ((v & which) != 0) & value;
}

// 32 quantised numbers in halves: q · d + m, with signed bytes q.
struct quants {
    bytes q[2];
    float d[2], m[2];

    void by(float scale, float minimum) {
        d[0] = d[1] = scale;
        m[0] = m[1] = minimum;
    }

    void to_floats(float * to) const {
        for (int half = 0; half < 2; half++) {
            int8_t of[16];
            memcpy(of, &q[half], 16);
            for (int i = 0; i < 16; i += LANES) {
                store(to + 16 * half + i, widened(of + i) * d[half] + m[half]);
            }
        }
    }
};

enum { Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q4_K = 12, Q5_K = 13, Q6_K = 14 };

static inline bool has_quants(unsigned type) {
    return type == Q4_0 || type == Q4_1 || type == Q5_0 || type == Q5_1 || type == Q8_0 || type == Q4_K ||
           type == Q5_K || type == Q6_K;
}

// Scale and minimum of part i of the 8 in a block of Q4_K or Q5_K, 6 bits each.
static inline void scale_and_minimum(const uint8_t * p, int i, int & scale, int & minimum) {
    if (i < 4) {
        scale   = p[i] & 63;
        minimum = p[i + 4] & 63;
    } else {
        scale   = (p[i + 4] & 15) | (p[i - 4] >> 6) << 4;
        minimum = (p[i + 4] >> 4) | (p[i] >> 6) << 4;
    }
}

// The numbers 32 part … of a block. The layouts are ggml's (ggml-common.h).
static inline quants quants_of(unsigned type, const char * block, int part) {
    quants to;
    switch (type) {
    case Q4_0:
    case Q4_1: {
        const bool  one = type == Q4_1;
        const float d   = half_to_float(block);
        const bytes q   = load_bytes(block + (one ? 4 : 2));
        to.q[0]         = q & 15;
        to.q[1]         = q >> 4;
        to.by(d, one ? half_to_float(block + 2) : -8 * d);
        break;
    }
    case Q5_0:
    case Q5_1: {
        const char * at = block + (type == Q5_1 ? 4 : 2);
        const float  d  = half_to_float(block);
        const bytes  q  = load_bytes(at + 4);
        uint32_t     high;
        memcpy(&high, at, 4);
        to.q[0] = (q & 15) | spread((uint16_t) high, 16);
        to.q[1] = (q >> 4) | spread(high >> 16, 16);
        to.by(d, type == Q5_1 ? half_to_float(block + 2) : -16 * d);
        break;
    }
    case Q8_0:
        to.q[0] = load_bytes(block + 2);
        to.q[1] = load_bytes(block + 18);
        to.by(half_to_float(block), 0);
        break;
    case Q4_K:
    case Q5_K: {  // d, minimum, 12 bytes of 6-bit scales, for Q5_K 32 bytes of fifth bits, 128 of the others
        int scale, minimum;
        scale_and_minimum((const uint8_t *) block + 4, part, scale, minimum);
        const char * low = block + (type == Q5_K ? 48 : 16) + part / 2 * 32;
        for (int i = 0; i < 2; i++) {
            const bytes q = load_bytes(low + 16 * i);
            bytes       v = part % 2 ? q >> 4 : q & 15;
            if (type == Q5_K) {
                v |= (load_bytes(block + 16 + 16 * i) >> part & 1) << 4;
            }
            to.q[i] = v;
        }
        to.by(half_to_float(block) * scale, -(half_to_float(block + 2) * minimum));
        break;
    }
    case Q6_K: {  // 128 bytes of lower 4 bits, 64 of upper 2, 16 scales, d
        const char *low = block + part / 4 * 64 + part % 2 * 32, *high = block + 128 + part / 4 * 32;
        const float d = half_to_float(block + 208);
        for (int i = 0; i < 2; i++) {
            const bytes q = load_bytes(low + 16 * i), h = load_bytes(high + 16 * i) >> 2 * (part % 4) & 3;
            to.q[i] = ((part % 4 < 2 ? q & 15 : q >> 4) | h << 4) - 32;
            to.d[i] = d * (int8_t) block[192 + 2 * part + i];
            to.m[i] = 0;
        }
        break;
    }
    }
    return to;
}

// Two lots of 16 bytes, side by side.
typedef uint8_t lots __attribute__((vector_size(32)));

// 16 × 16 bytes of each lot turned: four times, every vector of the first half is interleaved with its fellow of the
// second.
static inline void transpose(lots (&v)[16]) {
#pragma GCC        unroll 4
    for (int round = 0; round < 4; round++) {
        lots next[16];
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            next[2 * i] = __builtin_shufflevector(v[i], v[i + 8], 0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7,
                                                  39, 16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55);
            next[2 * i + 1] =
                __builtin_shufflevector(v[i], v[i + 8], 8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47,
                                        24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63);
        }
        memcpy(v, next, sizeof next);
    }
}

// 32 numbers of each of 32 rows, turned while they are bytes.
struct turned_quants {
    lots q[2][16];  // of each half of the numbers
    alignas(64) float d[2][32], m[2][32];

    // Number k of the rows from i on is in `half` at k.
    const int8_t * at(int half, int k, int i) const { return (const int8_t *) &q[half][k] + i; }

    // Calls f(k, v) with numbers k of the rows from i on.
    template <typename F> void each(int i, F f) const {
        for (int half = 0; half < 2; half++) {
            const vf by = load(d[half] + i), more = load(m[half] + i);
#pragma GCC unroll 16
            for (int k = 0; k < 16; k++) {
                f(16 * half + k, widened(at(half, k, i)) * by + more);
            }
        }
    }
};

template <unsigned TYPE> static inline void turn_rows(const char * const * rows, size_t offset, int part,
                                                      turned_quants & to) {
    for (int i = 0; i < 32; i++) {
        const quants of = quants_of(TYPE, rows[i] + offset, part);
        for (int half = 0; half < 2; half++) {
            memcpy((bytes *) &to.q[half][i % 16] + i / 16, &of.q[half], 16);
            to.d[half][i] = of.d[half];
            to.m[half][i] = of.m[half];
        }
    }
    transpose(to.q[0]);
    transpose(to.q[1]);
}

// The same where 32 numbers are a block with a scale and perhaps a minimum in front; 4-bit numbers are turned two in a
// byte.
template <unsigned TYPE> static inline void turn_blocks(const char * const * rows, size_t offset, turned_quants & to) {
    enum { MINIMUM = TYPE == Q4_1, FIRST = MINIMUM ? 4 : 2 };
    alignas(32) uint16_t d[32], m[32];
    for (int i = 0; i < 32; i++) {
        const char * block = rows[i] + offset;
        memcpy(d + i, block, 2);
        if (MINIMUM) {
            memcpy(m + i, block + 2, 2);
        }
        memcpy((bytes *) &to.q[0][i % 16] + i / 16, block + FIRST, 16);
        if (TYPE == Q8_0) {
            memcpy((bytes *) &to.q[1][i % 16] + i / 16, block + FIRST + 16, 16);
        }
    }
    transpose(to.q[0]);
    if (TYPE == Q8_0) {
        transpose(to.q[1]);
    } else {
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            to.q[1][i] = to.q[0][i] >> 4;
            to.q[0][i] &= 15;
        }
    }
    for (int i = 0; i < 32; i += 16) {
        halves_to_floats(d + i, to.d[0] + i);
        if (MINIMUM) {
            halves_to_floats(m + i, to.m[0] + i);
        }
    }
    for (int i = 0; i < 32; i += LANES) {
        const vf by = load(to.d[0] + i), more = MINIMUM ? load(to.m[0] + i) : TYPE == Q4_0 ? by * splat(-8) : vf{};
        store(to.d[1] + i, by);
        store(to.m[0] + i, more);
        store(to.m[1] + i, more);
    }
}

// The numbers 32 part … of the block that lies at offset in each of 32 rows.
static inline void turn_rows(unsigned type, const char * const * rows, size_t offset, int part, turned_quants & to) {
    switch (type) {
    case Q4_0: turn_blocks<Q4_0>(rows, offset, to); break;
    case Q4_1: turn_blocks<Q4_1>(rows, offset, to); break;
    case Q5_0: turn_rows<Q5_0>(rows, offset, part, to); break;
    case Q5_1: turn_rows<Q5_1>(rows, offset, part, to); break;
    case Q8_0: turn_blocks<Q8_0>(rows, offset, to); break;
    case Q4_K: turn_rows<Q4_K>(rows, offset, part, to); break;
    case Q5_K: turn_rows<Q5_K>(rows, offset, part, to); break;
    case Q6_K: turn_rows<Q6_K>(rows, offset, part, to); break;
    }
}

// n numbers of the row of a tensor, from the beginning of a block.
template <unsigned TYPE> static inline void unpack_quants(const char * from, float * to, int64_t n, int64_t block,
                                                          size_t size) {
    for (; n > 0; n -= block, from += size) {
        for (int64_t i = 0; i < block; i += 32, to += 32) {
            quants_of(TYPE, from, (int) (i / 32)).to_floats(to);
        }
    }
}

static inline void unpack(const ggml_tensor * t, const char * from, float * to, int64_t n) {
    switch (t->type) {
    case Q4_0: unpack_quants<Q4_0>(from, to, n, 32, 18); break;
    case Q4_1: unpack_quants<Q4_1>(from, to, n, 32, 20); break;
    case Q5_0: unpack_quants<Q5_0>(from, to, n, 32, 22); break;
    case Q5_1: unpack_quants<Q5_1>(from, to, n, 32, 24); break;
    case Q8_0: unpack_quants<Q8_0>(from, to, n, 32, 34); break;
    case Q4_K: unpack_quants<Q4_K>(from, to, n, 256, 144); break;
    case Q5_K: unpack_quants<Q5_K>(from, to, n, 256, 176); break;
    case Q6_K: unpack_quants<Q6_K>(from, to, n, 256, 210); break;
    default: to_float(t, from, to, n);
    }
}
