// Quantised blocks as floats: the most frequent types by vectors, the others by ggml.

typedef float   f16v __attribute__((vector_size(64)));
typedef uint8_t u16v __attribute__((vector_size(16)));
typedef int8_t  i16v __attribute__((vector_size(16)));

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

template <typename V> static inline f16v widened(V v) { return __builtin_convertvector(v, f16v); }

// n numbers of the row of a tensor, from the beginning of a block.
static inline void unpack(const ggml_tensor * t, const char * from, float * to, int64_t n) {
    enum { Q4_0 = 2, Q4_1 = 3, Q8_0 = 8, BLOCK = 32 };
    if (t->type != Q4_0 && t->type != Q4_1 && t->type != Q8_0) {
        to_float(t, from, to, n);
        return;
    }
    const size_t size = t->type == Q4_0 ? 18 : t->type == Q4_1 ? 20 : 34;
    for (; n > 0; n -= BLOCK, from += size, to += BLOCK) {
        const float d = half_to_float(from);
        f16v        low, high;
        if (t->type == Q8_0) {
            i16v q[2];
            memcpy(q, from + 2, sizeof q);
            low  = widened(q[0]) * d;
            high = widened(q[1]) * d;
        } else {
            u16v q;
            memcpy(&q, from + size - sizeof q, sizeof q);
            low  = widened(q & 15) * d;
            high = widened(q >> 4) * d;
            const float m = t->type == Q4_1 ? half_to_float(from + 2) : -8 * d;
            low += m;
            high += m;
        }
        memcpy(to, &low, sizeof low);
        memcpy(to + 16, &high, sizeof high);
    }
}
