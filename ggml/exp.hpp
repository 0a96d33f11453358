// eˣ and tanh of vectors.
#pragma once

#include "vectors.hpp"

namespace vera {
namespace KERNELS {

// A power eˣ in parts: x = n ln 2 + r with the integer n nearest x / ln 2, so that |r| ≤ ½ ln 2, and more = eʳ − 1 = r
// + r² q(r). The polynomial q, of degree 4, minimises the largest relative error of eʳ, 3·10⁻⁹ (Lawson's iteration).
struct power {
    vi n;
    vf more;
};

static inline power power_of(vf x) {
    const vf whole = splat(0x1.8p23f);  // adding it rounds to an integer
    // ln 2 in two parts: the first has 10 bits, so that n times it is exact.
    const vf shifted = x * splat(1.44269504f) + whole, n = shifted - whole;
    const vf r = x - n * splat(0x1.63p-1f) - n * splat(-2.12194440e-4f);
    vf       q = splat(1.38143204e-3f);
    q          = q * r + splat(8.36885107e-3f);
    q          = q * r + splat(4.16684011e-2f);
    q          = q * r + splat(1.66665195e-1f);
    q          = q * r + splat(4.99999934e-1f);
    return { (vi) shifted - 0x4b400000, q * (r * r) + r };
}

// 2ⁿ for n from −126 to 127.
static inline vf two_to(vi n) { return (vf) ((n + 127) << 23); }

// eˣ = 2ⁿ eʳ, with a relative error of 10⁻⁷ at most. It is 0 below −104, and infinite above 88.73. NaN stays NaN.
static inline vf exp_of(vf x) {
    const vf low = splat(-105), high = splat(90);
    x             = x < low ? low : x;
    x             = x > high ? high : x;
    const power p = power_of(x);
    // 2ⁿ in two steps, for subnormal results and those near the largest float.
    const vi half = p.n >> 1;
    return (p.more + splat(1)) * two_to(half) * two_to(p.n - half);
}

// tanh |x| = −m / (m + 2) with m = e^(−2|x|) − 1 = 2ⁿ (eʳ − 1) + (2ⁿ − 1), which loses nothing where x is small: the
// relative error is 2·10⁻⁷ at most. slope becomes 1 − tanh² x = 4 (m + 1) / (m + 2)². NaN stays NaN.
static inline vf tanh_of(vf x, vf & slope) {
    const vu sign  = (vu) splat(-0.0f) & (vu) x;
    const vf low   = splat(-30);
    vf       twice = (vf) ((vu) (x + x) | (vu) splat(-0.0f));
    twice          = twice < low ? low : twice;
    const power p  = power_of(twice);
    const vf    by = two_to(p.n), m = p.more * by + (by - splat(1)), n = m + splat(2);
    slope = splat(4) * (m + splat(1)) / (n * n);
    return (vf) (((vu) (m / n) & 0x7fffffff) | sign);
}

static inline vf tanh_of(vf x) {
    vf slope;
    return tanh_of(x, slope);
}

}  // namespace KERNELS
}  // namespace vera
