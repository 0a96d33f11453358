// eˣ = 2ⁿ eʳ with n the whole number nearest x / ln 2, so that |r| = |x − n ln 2| ≤ ½ ln 2, and eʳ = 1 + r + r² q(r). The polynomial q, of degree 4, has
// the smallest greatest relative error of eʳ, 3·10⁻⁹ (fitted by Lawson's iteration).

// n, and gives eʳ − 1. x is between −10⁶ and 10⁶ or NaN.
static inline vf exp_parts(vf x, vi & power) {
    const vf whole = splat(0x1.8p23f);  // adding it rounds off the fraction
    // ln 2 in two parts: the first has 10 bits, so that n times it is exact.
    const vf shifted = x * splat(1.44269504f) + whole, n = shifted - whole;
    const vf r       = x - n * splat(0x1.63p-1f) - n * splat(-2.12194440e-4f);
    vf       q       = splat(1.38143204e-3f);
    q                = q * r + splat(8.36885107e-3f);
    q                = q * r + splat(4.16684011e-2f);
    q                = q * r + splat(1.66665195e-1f);
    q                = q * r + splat(4.99999934e-1f);
    memcpy(&power, &shifted, sizeof power);
    power = power - 0x4b400000;
    return q * (r * r) + r;
}

// 2ⁿ for −127 < n < 128.
static inline vf power_of_two(vi n) {
    const vi bits = (n + 127) << 23;
    vf       x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

// eˣ, off by 10⁻⁷ at most. Below −104 it is 0, above 88.73 infinity; NaN stays NaN.
static inline vf exp_of(vf x) {
    const vf low = splat(-105), high = splat(90);
    x = x < low ? low : x;
    x = x > high ? high : x;
    vi       n;
    const vf e    = exp_parts(x, n) + splat(1);
    const vi half = n >> 1;  // two steps, for results beside the normal numbers
    return e * power_of_two(half) * power_of_two(n - half);
}

// tanh x = m / (m + 2) with m = e^2|x| − 1, for which no digits are lost near 0, and x's sign: off by 3·10⁻⁷ at most. `slope` becomes
// 1 − tanh² x = 4 (m + 1) / (m + 2)². NaN stays NaN.
static inline vf tanh_of(vf x, vf & slope) {
    const vf high = splat(80);
    vf       y    = x < vf{} ? splat(-2) * x : splat(2) * x;
    y             = y > high ? high : y;
    vi       n;
    const vf e = exp_parts(y, n), by = power_of_two(n), m = e * by + (by - splat(1)), t = m / (m + splat(2));
    slope = splat(4) * ((m + splat(1)) / (m + splat(2))) / (m + splat(2));
    return x < vf{} ? -t : t;
}

static inline vf tanh_of(vf x) {
    vf slope;
    return tanh_of(x, slope);
}
