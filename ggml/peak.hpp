// The most that the processor can compute: for measuring what is possible.
#pragma once

#include "amx.hpp"
#include "integers.hpp"

namespace vera {
namespace KERNELS {

enum { ACCUMULATORS = REGISTERS * 3 / 4 };

// acc = step(acc, x, y) on registers, n times; nothing is loaded or stored. Returns the sum.
template <typename V, typename F> static float repeat(int64_t n, V x, V y, F step) {
    V     acc[ACCUMULATORS];
    float total = 0;
    for (int i = 0; i < ACCUMULATORS; i++) {
        acc[i] = V{};
    }
    for (; n > 0; n--) {
#pragma GCC unroll 32
        for (int i = 0; i < ACCUMULATORS; i++) {
            in_register(x);  // else what does not depend on acc would be computed once
            acc[i] = step(acc[i], x, y);
        }
    }
    for (int i = 0; i < ACCUMULATORS; i++) {
        for (int j = 0; j < LANES; j++) {
            total += acc[i][j];
        }
    }
    return total;
}

// Pairs of bfloat16.
static inline vf multiply_add_half(vf acc, vf x, vf y) {
#if PAIRED
    return (vf) vbfmmlaq_f32((float32x4_t) acc, vreinterpretq_bf16_f32((float32x4_t) x),
                             vreinterpretq_bf16_f32((float32x4_t) y));
#elif HAS_BF16
    return (vf) _mm512_dpbf16_ps((__m512) acc, (__m512bh) x, (__m512bh) y);
#else
    return acc + x * y;
#endif
}

#if HAS_AMX
// Four products of tiles a round, each of 16 × 16 sums of 32 products. Returns how many operations that is.
static double multiply_tiles(int64_t rounds) {
    const tile_registers<true> registers;
    for (int64_t i = 0; i < rounds; i++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    return rounds * 4.0 * 16 * 16 * 32 * 2;
}
#endif

// Every thread makes `rounds` multiply-adds on each lane of 3/4 of the registers, or products of tiles. dst [1] gets
// the number of operations of all threads. Source: a tensor of the type to compute in; int32 stands for the integers of
// GGML_VERA_INTEGERS.
static void peak(const thread & t, ggml_tensor * dst) {
    const int     kind   = t.src[0]->type;
    const bool    half   = HAS_BF16 && kind == BF16;
    const int64_t rounds = 1 << 21;
    int           each   = 1;  // products that a lane adds up
#if HAS_AMX
    if (half) {
        const double operations = multiply_tiles(rounds);
        if (t.ith == 0) {
            *(float *) dst->data = (float) (operations * t.nth);
        }
        return;
    }
#endif
    volatile float kept;
    if (kind == I32) {
        each = IN_WORD;
        kept = repeat(rounds, vi{}, vi{} + 1, plus_products);
    } else if (half) {
        each = PAIRED ? 4 : 2;
        kept = repeat(rounds, splat(1), splat(1), multiply_add_half);
    } else {
        kept = repeat(rounds, splat(1), splat(1), [](vf acc, vf x, vf y) { return acc + x * y; });
    }
    (void) kept;
    if (t.ith == 0) {
        *(float *) dst->data = (float) (2.0 * rounds * ACCUMULATORS * LANES * each * t.nth);
    }
}

}  // namespace KERNELS
}  // namespace vera
