// Vectors of LANES floats, in whose terms all kernels are written. Each instruction set's file defines
//
//   ISA        its namespace
//   LANES      floats in a vector
//   REGISTERS  vector registers: 16 or 32
//   HAS_BF16   1 where it multiplies bfloat16 numbers (AVX512_BF16)
//   HAS_VNNI   1 where it multiplies bytes and adds them up (AVX512_VNNI)
//   HAS_AMX    1 where it also does so in tiles
//
// and on Arm
//
//   HAS_DOT    1 where it multiplies signed bytes and adds four products up (FEAT_DotProd)
//   HAS_I8MM   1 where it multiplies 2 × 8 signed bytes by 8 × 2 (FEAT_I8MM)
//
// and includes kernels.hpp. Each header includes what it uses, so that it also compiles alone, as the portable set:
//
//   g++ -std=c++17 -fsyntax-only -x c++ ggml/rows.hpp
#pragma once

#include "kernels.h"

#ifndef ISA
#include "portable.h"
#endif

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define JOIN_(a, b) a##b
#define JOIN(a, b)  JOIN_(a, b)
#define KERNELS     JOIN(kernels_, ISA)

// bfloat16 numbers are multiplied in pairs of rows and of columns (tiles.hpp).
#if HAS_BF16 && defined(__aarch64__)
#define PAIRED 1
#else
#define PAIRED 0
#endif

namespace vera {
namespace KERNELS {

typedef float   vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));

typedef uint32_t vu __attribute__((vector_size(4 * LANES)));
typedef uint16_t vh __attribute__((vector_size(2 * LANES)));

static inline vf load(const float * p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void store(float * p, vf v) { memcpy(p, &v, sizeof v); }

static inline vf splat(float x) { return x - vf{}; }

// a · b + c, rounded once where the instruction set has that. If the compiler could choose, two copies of a loop might
// give different bits.
static inline vf fused(vf a, vf b, vf c) {
#if LANES == 16 && defined(__x86_64__)
    return (vf) _mm512_fmadd_ps((__m512) a, (__m512) b, (__m512) c);
#elif LANES == 8 && defined(__x86_64__)
    return (vf) _mm256_fmadd_ps((__m256) a, (__m256) b, (__m256) c);
#elif defined(__aarch64__)
    return (vf) vfmaq_f32((float32x4_t) c, (float32x4_t) a, (float32x4_t) b);
#elif defined(__FP_FAST_FMAF)
    vf v;
    for (int i = 0; i < LANES; i++) {
        v[i] = __builtin_fmaf(a[i], b[i], c[i]);
    }
    return v;
#else
    return a * b + c;
#endif
}

static inline float sum(vf v) {
    float s = 0;
    for (int i = 0; i < LANES; i++) {
        s += v[i];
    }
    return s;
}

// bfloat16 is the upper half of a float, rounded to nearest, ties to even. NaN stays NaN.

static inline uint16_t to_bf16(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    if ((u & 0x7fffffff) > 0x7f800000) {
        return (uint16_t) (u >> 16 | 64);
    }
    return (uint16_t) ((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static inline vf load(const uint16_t * p) {
    vh h;
    memcpy(&h, p, sizeof h);
    return (vf) (__builtin_convertvector(h, vu) << 16);
}

// AVX512_BF16 flushes subnormal values, those under 1.2·10⁻³⁸, to 0; Arm does so in products only.
static inline void store(uint16_t * p, vf v) {
#if HAS_BF16
#if defined(__aarch64__)
    const bfloat16x4_t h = vcvt_bf16_f32((float32x4_t) v);
#else
    const __m256bh h = _mm512_cvtneps_pbh((__m512) v);
#endif
#else
    const vu u = (vu) v, nearest = u + 0x7fff + (u >> 16 & 1), quiet = u | 64 << 16;
    const vh h = __builtin_convertvector((v != v ? quiet : nearest) >> 16, vh);
#endif
    memcpy(p, &h, sizeof h);
}

// Loads and stores of floats, or of bfloat16 as uint16_t: whole vectors, or their first n lanes. A load fills the other
// lanes with `rest`.
struct full {};

template <typename T> static inline vf load(const T * p, full, T = T()) { return load(p); }

template <typename T> static inline vf load(const T * p, int64_t n, T rest = T()) {
    T all[LANES];
    for (int i = 0; i < LANES; i++) {
        all[i] = rest;
    }
    memcpy(all, p, n * sizeof(T));
    return load(all);
}

template <typename T> static inline void store(T * p, vf v, full) { store(p, v); }

template <typename T> static inline void store(T * p, vf v, int64_t n) {
    T all[LANES];
    store(all, v);
    memcpy(p, all, n * sizeof(T));
}

// Calls f(i, full{}) for each whole vector of n elements, then f(i, count) for the remainder.
template <typename F> static inline void by_vectors(int64_t n, F f) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        f(i, full{});
    }
    if (i < n) {
        f(i, n - i);
    }
}

template <typename T, typename U> static inline void copy(const T * from, U * to, int64_t n) {
    by_vectors(n, [&](int64_t i, auto some) { store(to + i, load(from + i, some), some); });
}

template <typename T> static inline void copy(const T * from, T * to, int64_t n) { memcpy(to, from, n * sizeof(T)); }

// n activations at p as floats: p itself, or converted into buf.
static inline const float * floats(const ggml_tensor * t, const void * p, float * buf, int64_t n) {
    if (t->type == F32) {
        return (const float *) p;
    }
    copy((const uint16_t *) p, buf, n);
    return buf;
}

// Stores floats at p in the type of t.
static inline void put(ggml_tensor * t, void * p, const float * values, int64_t n) {
    if (t->type == BF16) {
        copy(values, (uint16_t *) p, n);
    } else if (p != values) {
        memcpy(p, values, n * sizeof(float));
    }
}

// Row i of a matrix.
static inline char * row(const ggml_tensor * t, int64_t i) { return (char *) t->data + i * t->nb[1]; }

// Prefetches n bytes from p on; the memory need not exist.
static inline void prefetch(const char * p, size_t n) {
    for (size_t i = 0; i < n; i += 64) {
        __builtin_prefetch(p + i);
    }
}

// The floats of a vector, or NULL where there is none.
static inline const float * float_data(const ggml_tensor * t) { return t ? (const float *) t->data : nullptr; }

// The lanes of v joined by op, each half with the other: of four, (0 op 2) op (1 op 3).
template <typename F> static inline float folded(vf v, F op) {
#if LANES >= 8 && defined(__x86_64__)
#if LANES == 16
    const __m256 half = op(_mm512_castps512_ps256((__m512) v), _mm512_extractf32x8_ps((__m512) v, 1));
#else
    const __m256 half = (__m256) v;
#endif
    const __m128 four = op(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)),
                 two  = op(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(op(two, _mm_movehdup_ps(two)));
#elif defined(__aarch64__)
    typedef float pair __attribute__((vector_size(8)));
    const pair    two = op((pair) vget_low_f32((float32x4_t) v), (pair) vget_high_f32((float32x4_t) v));
    return op(two[0], two[1]);
#else
    float s[LANES];
    store(s, v);
    for (int n = LANES / 2; n > 0; n /= 2) {
        for (int i = 0; i < n; i++) {
            s[i] = op(s[i], s[i + n]);
        }
    }
    return s[0];
#endif
}

// The sum of the lanes, added in pairs.
static inline float in_pairs(vf v) {
    return folded(v, [](auto a, auto b) { return a + b; });
}

// The largest lane; no lane may be NaN.
static inline float max_of(vf v) {
    return folded(v, [](auto a, auto b) { return a > b ? a : b; });
}

// Keeps v in a register: the compiler would load it again for every use, and loads bound the loops that use this.
template <typename V> static inline void in_register(V & v) {
#if defined(__x86_64__)
    __asm__("" : "+v"(v));
#elif defined(__aarch64__)
    __asm__("" : "+w"(v));
#else
    (void) v;
#endif
}

// Keeps the compiler for Arm from loading ahead more operands than registers can hold; the processor does that itself.
static inline void loads_end() {
#if defined(__aarch64__)
    __asm__ volatile("" ::: "memory");
#endif
}

}  // namespace KERNELS
}  // namespace vera
