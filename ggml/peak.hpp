// The most that the processor can compute: for measuring what is possible.
#pragma once

#include "amx.hpp"

namespace vera {
namespace KERNELS {

// Multiply-adds on registers; nothing is loaded or stored.
template <bool HALF> static float multiply_add(int64_t n, float a, float b) {
    enum { COUNT = REGISTERS * 3 / 4 };
    vf    acc[COUNT], x = splat(a), y = splat(b);
    float total = 0;
    for (int i = 0; i < COUNT; i++) {
        acc[i] = vf{};
    }
    for (; n > 0; n--) {
#pragma GCC unroll 32
        for (int i = 0; i < COUNT; i++) {
#if PAIRED
            if (HALF) {
                acc[i] = (vf) vbfmmlaq_f32((float32x4_t) acc[i], vreinterpretq_bf16_f32((float32x4_t) x),
                                           vreinterpretq_bf16_f32((float32x4_t) y));
                continue;
            }
#elif HAS_BF16
            if (HALF) {
                acc[i] = (vf) _mm512_dpbf16_ps((__m512) acc[i], (__m512bh) x, (__m512bh) y);
                continue;
            }
#endif
            acc[i] += x * y;
        }
    }
    for (int i = 0; i < COUNT; i++) {
        total += sum(acc[i]);
    }
    return total;
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
// the number of operations of all threads. Source: a tensor of the type to compute in.
static void peak(const thread & t, ggml_tensor * dst) {
    const bool    half   = HAS_BF16 && t.src[0]->type == BF16;
    const int64_t rounds = 1 << 21;
#if HAS_AMX
    if (half) {
        const double operations = multiply_tiles(rounds);
        if (t.ith == 0) {
            *(float *) dst->data = (float) (operations * t.nth);
        }
        return;
    }
#endif
    volatile float kept = half ? multiply_add<HAS_BF16>(rounds, 1, 1) : multiply_add<false>(rounds, 1, 1);
    (void) kept;
    if (t.ith == 0) {
        *(float *) dst->data =
            (float) (2.0 * rounds * (REGISTERS * 3 / 4) * LANES * (half ? PAIRED ? 4 : 2 : 1) * t.nth);
    }
}

}  // namespace KERNELS
}  // namespace vera
