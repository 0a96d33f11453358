// The kernels, in terms of vectors of LANES floats. Each instruction set's file defines
//
//   ISA        its namespace
//   LANES      floats in a vector
//   REGISTERS  vector registers: 16 or 32
//   HAS_BF16   1 where it multiplies bfloat16 numbers (AVX512_BF16)
//   HAS_AMX    1 where it also does so in tiles
//
// and includes this file once.

#define JOIN_(a, b) a##b
#define JOIN(a, b)  JOIN_(a, b)
#define KERNELS     JOIN(kernels_, ISA)

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

// a · b + c with one rounding where the instruction set has that. Where the compiler may choose, two copies of a loop
// can come out with other bits.
static inline vf fused(vf a, vf b, vf c) {
#if LANES == 16 && defined(__x86_64__)
    return (vf) _mm512_fmadd_ps((__m512) a, (__m512) b, (__m512) c);
#elif LANES == 8 && defined(__x86_64__)
    return (vf) _mm256_fmadd_ps((__m256) a, (__m256) b, (__m256) c);
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

// bfloat16: the upper half of a float, rounded to the nearest, ties to even; a NaN stays one.

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

// AVX512_BF16 takes what is below the normal numbers, under 1.2·10⁻³⁸, for 0.
static inline void store(uint16_t * p, vf v) {
#if HAS_BF16
    const __m256bh h = _mm512_cvtneps_pbh((__m512) v);
#else
    const vu u = (vu) v, nearest = u + 0x7fff + (u >> 16 & 1), quiet = u | 64 << 16;
    const vh h = __builtin_convertvector((v != v ? quiet : nearest) >> 16, vh);
#endif
    memcpy(p, &h, sizeof h);
}

// The numbers at p, float or uint16_t for bfloat16, in a vector: LANES of them, or the first n with `rest` behind them.
struct full {};

template <typename T> static inline vf load(const T * p, full, T = 0) { return load(p); }

template <typename T> static inline vf load(const T * p, int64_t n, T rest = 0) {
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

// Calls f(i, full{}) for all whole vectors in n numbers, then f(i, count) for what is left.
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

// n activations at p, as floats: where they are, or in buf.
static inline const float * floats(const ggml_tensor * t, const void * p, float * buf, int64_t n) {
    if (t->type == F32) {
        return (const float *) p;
    }
    copy((const uint16_t *) p, buf, n);
    return buf;
}

static inline void put(ggml_tensor * t, void * p, const float * values, int64_t n) {
    if (t->type == BF16) {
        copy(values, (uint16_t *) p, n);
    } else if (p != values) {
        memcpy(p, values, n * sizeof(float));
    }
}

static inline char * row(const ggml_tensor * t, int64_t i) { return (char *) t->data + i * t->nb[1]; }

// Asks for n bytes from p on to be fetched into the cache; they need not be there.
static inline void prefetch(const char * p, size_t n) {
    for (size_t i = 0; i < n; i += 64) {
        __builtin_prefetch(p + i);
    }
}

#include "exp.hpp"
#include "product.hpp"
#include "vera.hpp"
#include "attention.hpp"
#include "cached.hpp"
#include "rows.hpp"
#include "experts.hpp"
#include "convolution.hpp"
#include "delta.hpp"
#include "peak.hpp"

}  // namespace KERNELS

#define QUOTE(x) #x
#define NAME(x)  QUOTE(x)
const isa ISA = { NAME(ISA),
                  HAS_BF16,
                  { KERNELS::mul_mat,
                    KERNELS::mul_mat_back,
                    KERNELS::weight_grad,
                    KERNELS::merge,
                    KERNELS::merged_grad,
                    KERNELS::factored_grad,
                    KERNELS::attention_forward,
                    KERNELS::attention_back,
                    KERNELS::attention_cached,
                    KERNELS::norm,
                    KERNELS::norm_back,
                    KERNELS::layer_norm,
                    KERNELS::layer_norm_back,
                    KERNELS::norm_heads,
                    KERNELS::norm_heads_back,
                    KERNELS::activated<false>,
                    KERNELS::activated_back<false>,
                    KERNELS::activated<true>,
                    KERNELS::activated_back<true>,
                    KERNELS::rotate,
                    KERNELS::convert,
                    KERNELS::capped,
                    KERNELS::cross_entropy,
                    KERNELS::cross_entropy_back,
                    KERNELS::route,
                    KERNELS::route_back,
                    KERNELS::weigh,
                    KERNELS::experts,
                    KERNELS::convolution,
                    KERNELS::convolution_back,
                    KERNELS::convolution_cached,
                    KERNELS::delta_net,
                    KERNELS::delta_net_back,
                    KERNELS::delta_net_cached,
                    KERNELS::gated_norm,
                    KERNELS::gated_norm_back,
                    KERNELS::peak } };

}  // namespace vera
