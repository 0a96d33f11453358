// eˣ = 2ⁿ eʳ with n the whole number nearest x / ln 2, so that |r| = |x − n ln 2| ≤ ½ ln 2, and eʳ = 1 + r + r² q(r). The polynomial q, of degree 4, has
// the smallest greatest relative error of eʳ, 3·10⁻⁹ (fitted by Lawson's iteration); with rounding, eˣ is off by 10⁻⁷ at most. Below −104 it is 0, above 88.73
// infinity; NaN stays NaN.
static inline vf exp_of(vf x) {
    const vf low = splat(-105), high = splat(90), whole = splat(0x1.8p23f);  // adding `whole` rounds off the fraction
    x = x < low ? low : x;
    x = x > high ? high : x;
    // ln 2 in two parts: the first has 10 bits, so that n times it is exact.
    const vf shifted = x * splat(1.44269504f) + whole, n = shifted - whole;
    const vf r       = x - n * splat(0x1.63p-1f) - n * splat(-2.12194440e-4f);
    vf       q       = splat(1.38143204e-3f);
    q                = q * r + splat(8.36885107e-3f);
    q                = q * r + splat(4.16684011e-2f);
    q                = q * r + splat(1.66665195e-1f);
    q                = q * r + splat(4.99999934e-1f);
    const vf e       = q * (r * r) + r + splat(1);
    // 2ⁿ in two steps, for results beside the normal numbers.
    vi i, half;
    memcpy(&i, &shifted, sizeof i);
    i    = i - 0x4b400000;
    half = i >> 1;
    vi first = (half + 127) << 23, second = (i - half + 127) << 23;
    vf a, b;
    memcpy(&a, &first, sizeof a);
    memcpy(&b, &second, sizeof b);
    return e * a * b;
}
