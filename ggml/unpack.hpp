// Dequantises blocks: the most frequent types with vectors, the others with ggml. All intermediate results but the last
// sum, that with a minimum, are exact in float32, so the values are those of ggml to the bit.
#pragma once

#include "transpose.hpp"
#include "vectors.hpp"

namespace vera {
namespace KERNELS {

static inline float half_to_float(const char * p) {
    uint16_t h;
    memcpy(&h, p, 2);
#if LANES >= 8
    return _cvtsh_ss(h);
#elif defined(__aarch64__)
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))), 0);
#else
    // Multiplying moves the exponent, which makes subnormal values right as well. Infinity and NaN keep theirs.
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

// The same for 16 values in a row.
static inline void halves_to_floats(const uint16_t * from, float * to) {
#if LANES == 16 && defined(__x86_64__)
    store(to, (vf) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) from)));
#elif LANES == 8 && defined(__x86_64__)
    store(to, (vf) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) from)));
    store(to + 8, (vf) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) (from + 8))));
#elif defined(__aarch64__)
    for (int i = 0; i < 16; i += 4) {
        vst1q_f32(to + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from + i))));
    }
#else
    for (int i = 0; i < 16; i++) {
        to[i] = half_to_float((const char *) (from + i));
    }
#endif
}

// A float16.
struct half {
    uint16_t bits;
};

static inline vf load(const half * p) {
#if LANES == 16 && defined(__x86_64__)
    return (vf) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p));
#elif LANES == 8 && defined(__x86_64__)
    return (vf) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p));
#elif defined(__aarch64__)
    return (vf) vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *) p)));
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
#elif defined(__aarch64__)
    to.bits = vget_lane_u16(vreinterpret_u16_f16(vcvt_f16_f32(vdupq_n_f32(x))), 0);
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
#elif defined(__aarch64__)
    int32_t four;
    memcpy(&four, p, 4);
    return (vf) vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four))))));
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

// Byte i is `value` if bit i of 16 is set, else 0.
static inline bytes spread(uint16_t bits, uint8_t value) {
    const bytes which = { 1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128 };
    bytes       v;
    memset(&v, bits & 255, 8);
    memset((char *) &v + 8, bits >> 8, 8);
    return (bytes) ((v & which) != 0) & value;
}

// 32 quantised values in two halves: q · d + m, with signed bytes q.
struct quants {
    bytes q[2];
    float d[2], m[2];

    void set(float scale, float minimum) {
        d[0] = d[1] = scale;
        m[0] = m[1] = minimum;
    }

    void to_floats(float * to) const {
        for (int half = 0; half < 2; half++) {
            int8_t bytes[16];
            memcpy(bytes, &q[half], 16);
            for (int i = 0; i < 16; i += LANES) {
                store(to + 16 * half + i, widened(bytes + i) * d[half] + m[half]);
            }
        }
    }
};

enum { Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q4_K = 12, Q5_K = 13, Q6_K = 14 };

static inline bool has_quants(unsigned type) {
    return type == Q4_0 || type == Q4_1 || type == Q5_0 || type == Q5_1 || type == Q8_0 || type == Q4_K ||
           type == Q5_K || type == Q6_K;
}

// The 6-bit scale and minimum of part i, of 8, of a block of Q4_K or Q5_K.
static inline void scale_and_minimum(const uint8_t * p, int i, int & scale, int & minimum) {
    if (i < 4) {
        scale   = p[i] & 63;
        minimum = p[i + 4] & 63;
    } else {
        scale   = (p[i + 4] & 15) | (p[i - 4] >> 6) << 4;
        minimum = (p[i + 4] >> 4) | (p[i] >> 6) << 4;
    }
}

// Values 32 part … 32 part + 31 of a block. The layouts are those of ggml-common.h.
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
        to.set(d, one ? half_to_float(block + 2) : -8 * d);
        break;
    }
    case Q5_0:
    case Q5_1: {
        const char * bits = block + (type == Q5_1 ? 4 : 2);
        const float  d    = half_to_float(block);
        const bytes  q    = load_bytes(bits + 4);
        uint32_t     high;
        memcpy(&high, bits, 4);
        to.q[0] = (q & 15) | spread((uint16_t) high, 16);
        to.q[1] = (q >> 4) | spread(high >> 16, 16);
        to.set(d, type == Q5_1 ? half_to_float(block + 2) : -16 * d);
        break;
    }
    case Q8_0:
        to.q[0] = load_bytes(block + 2);
        to.q[1] = load_bytes(block + 18);
        to.set(half_to_float(block), 0);
        break;
    case Q4_K:
    case Q5_K: {  // d, minimum, 12 bytes of 6-bit scales; in Q5_K 32 bytes of fifth bits; 128 bytes of four bits
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
        to.set(half_to_float(block) * scale, -(half_to_float(block + 2) * minimum));
        break;
    }
    case Q6_K: {  // 128 bytes of the lower 4 bits, 64 of the upper 2, 16 scales, d
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

// 32 values of each of 32 rows, transposed while they are bytes.
struct transposed_quants {
    lots q[2][16];  // for each half of the values, its 16 columns
    alignas(64) float d[2][32], m[2][32];

    // Value k of the rows from i on; k is counted in its half.
    const int8_t * bytes_at(int half, int k, int i) const { return (const int8_t *) &q[half][k] + i; }

    // Calls f(k, v) with the values k of the rows from i on.
    template <typename F> void each(int i, F f) const {
        for (int half = 0; half < 2; half++) {
            const vf scale = load(d[half] + i), minimum = load(m[half] + i);
#pragma GCC unroll 16
            for (int k = 0; k < 16; k++) {
                f(16 * half + k, widened(bytes_at(half, k, i)) * scale + minimum);
            }
        }
    }
};

// Transposes part `part` of the block at offset of each of 32 rows.
template <unsigned TYPE> static inline void transpose_rows(const char * const * rows, size_t offset, int part,
                                                           transposed_quants & to) {
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

// The same where a block is 32 values, a scale, and perhaps a minimum. 4-bit values are transposed two in a byte.
template <unsigned TYPE> static inline void transpose_blocks(const char * const * rows, size_t offset,
                                                             transposed_quants & to) {
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
        const vf scale = load(to.d[0] + i), minimum = MINIMUM        ? load(to.m[0] + i)
                                                      : TYPE == Q4_0 ? scale * splat(-8)
                                                                     : vf{};
        store(to.d[1] + i, scale);
        store(to.m[0] + i, minimum);
        store(to.m[1] + i, minimum);
    }
}

// The same for any of these types.
static inline void transpose_rows(unsigned type, const char * const * rows, size_t offset, int part,
                                  transposed_quants & to) {
    switch (type) {
    case Q4_0: transpose_blocks<Q4_0>(rows, offset, to); break;
    case Q4_1: transpose_blocks<Q4_1>(rows, offset, to); break;
    case Q5_0: transpose_rows<Q5_0>(rows, offset, part, to); break;
    case Q5_1: transpose_rows<Q5_1>(rows, offset, part, to); break;
    case Q8_0: transpose_blocks<Q8_0>(rows, offset, to); break;
    case Q4_K: transpose_rows<Q4_K>(rows, offset, part, to); break;
    case Q5_K: transpose_rows<Q5_K>(rows, offset, part, to); break;
    case Q6_K: transpose_rows<Q6_K>(rows, offset, part, to); break;
    }
}

// n values of a row, from the beginning of a block.
template <unsigned TYPE> static inline void unpack_quants(const char * from, float * to, int64_t n, int64_t block,
                                                          size_t size) {
    for (; n > 0; n -= block, from += size) {
        for (int64_t i = 0; i < block; i += 32, to += 32) {
            quants_of(TYPE, from, (int) (i / 32)).to_floats(to);
        }
    }
}

// n values of a row of any type as floats, from the beginning of a block.
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

}  // namespace KERNELS
}  // namespace vera
