// What the processor could do at most: multiply-adds on registers, nothing loaded or stored.
template <bool HALF> static float multiply_add(int64_t n, float a, float b) {
    enum { COUNT = REGISTERS * 3 / 4 };
    vf       acc[COUNT], x = splat(a), y = splat(b);
    float    total = 0;
    for (int i = 0; i < COUNT; i++) {
        acc[i] = vf{};
    }
    for (; n > 0; n--) {
#pragma GCC unroll 32
        for (int i = 0; i < COUNT; i++) {
#if HAS_BF16
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

// Every thread makes `rounds` of them on each lane of 3/4 of the registers; dst [1] gets their number of operations in all. Source: a tensor of the type.
static void peak(const thread & t, ggml_tensor * dst) {
    const bool     half   = HAS_BF16 && t.src[0]->type == BF16;
    const int64_t  rounds = 1 << 21;
    volatile float kept = half ? multiply_add<HAS_BF16>(rounds, 1, 1) : multiply_add<false>(rounds, 1, 1);
    (void) kept;
    if (t.ith == 0) {
        *(float *) dst->data = (float) (2.0 * rounds * (REGISTERS * 3 / 4) * LANES * (half ? 2 : 1) * t.nth);
    }
}
