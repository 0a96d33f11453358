#include "kernels.h"

#include <cstdlib>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__)
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#endif

namespace vera {

struct candidate {
    const isa * which;
    bool (*available)();
};

#if defined(__x86_64__)

// What the processor has, and the system keeps the registers of. The compiler's own __builtin_cpu_supports is always
// false where Zig's runtime library is linked.
struct processor {
    unsigned leaf1 = 0, leaf7b = 0, leaf7c = 0, leaf7d = 0, leaf71a = 0, registers = 0;

    processor() {
        unsigned a, b, c, d;
        if (!__get_cpuid(1, &a, &b, &leaf1, &d) || !(leaf1 >> 27 & 1)) {
            return;  // no OSXSAVE: the system keeps no vector register of AVX
        }
        __asm__("xgetbv" : "=a"(registers), "=d"(d) : "c"(0));
        if (__get_cpuid_count(7, 0, &a, &leaf7b, &leaf7c, &leaf7d) && a >= 1) {
            __get_cpuid_count(7, 1, &leaf71a, &b, &c, &d);
        }
    }
};

static const processor & cpu() {
    static const processor p;
    return p;
}

// FMA, F16C and AVX2.
static bool has_avx2() {
    const bool kept = (cpu().registers & 0x6) == 0x6;
    return kept && cpu().leaf1 >> 12 & 1 && cpu().leaf1 >> 29 & 1 && cpu().leaf7b >> 5 & 1;
}

// AVX512F, DQ, BW and VL.
static bool has_avx512() {
    const bool     kept   = (cpu().registers & 0xe6) == 0xe6;
    const unsigned needed = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
    return has_avx2() && kept && (cpu().leaf7b & needed) == needed;
}

// AVX512_VNNI and AVX512_BF16.
static bool has_avx512bf16() { return has_avx512() && cpu().leaf7c >> 11 & 1 && cpu().leaf71a >> 5 & 1; }

#if !defined(_WIN32)
// Linux must be asked for tile registers once a process.
static bool has_amx() {
#if defined(__linux__)
    enum { TILES = 18, REQUEST = 0x1023 };  // ARCH_REQ_XCOMP_PERM of arch_prctl(2)
    const bool bf16 = cpu().leaf7d >> 22 & 1, tiles = cpu().leaf7d >> 24 & 1;
    return has_avx512bf16() && bf16 && tiles && syscall(SYS_arch_prctl, REQUEST, TILES) == 0;
#else
    return false;
#endif
}
#endif

static const candidate candidates[] = {
#if !defined(_WIN32)
    { &amx, has_amx },
#endif
    { &avx512bf16, has_avx512bf16 },
    { &avx512, has_avx512 },
    { &avx2, has_avx2 }
};

#elif defined(__aarch64__)

// Whether the processor has FEAT_DotProd, FEAT_I8MM or FEAT_BF16: what the system tells, or else what the compiler was
// told. The bit is one of AT_HWCAP, or 32 more for one of AT_HWCAP2.
#if defined(__linux__)
static bool has(int bit, const char *, bool) { return getauxval(bit < 32 ? AT_HWCAP : AT_HWCAP2) >> bit % 32 & 1; }
#elif defined(__APPLE__)
static bool has(int, const char * feature, bool) {
    int    value = 0;
    size_t size  = sizeof value;
    return sysctlbyname(feature, &value, &size, nullptr, 0) == 0 && value;
}
#else
static bool has(int, const char *, bool told) { return told; }
#endif

static bool has_dotprod() {
#if defined(__ARM_FEATURE_DOTPROD)
    const bool told = true;
#else
    const bool told = false;
#endif
    return has(20, "hw.optional.arm.FEAT_DotProd", told);
}

static bool has_i8mm() {
#if defined(__ARM_FEATURE_MATMUL_INT8)
    const bool told = true;
#else
    const bool told = false;
#endif
    return has_dotprod() && has(32 + 13, "hw.optional.arm.FEAT_I8MM", told);
}

static bool has_bf16() {
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
    const bool told = true;
#else
    const bool told = false;
#endif
    return has_i8mm() && has(32 + 14, "hw.optional.arm.FEAT_BF16", told);
}

static const candidate candidates[] = { { &bf16, has_bf16 }, { &i8mm, has_i8mm }, { &dotprod, has_dotprod } };

#else

static const candidate candidates[] = { { &portable, [] { return true; } } };

#endif

// The best instruction set that the processor has and that is not better than `most`; NULL allows all. An unknown name
// allows only the least.
static const isa * choose(const char * most) {
#if !defined(_WIN32)
    if (&emulated && most && !strcmp(most, emulated.name)) {
        return &emulated;
    }
#endif
    bool allowed = !most || !*most;
    for (const candidate & c : candidates) {
        allowed = allowed || !strcmp(most, c.which->name);
        if (allowed && c.available()) {
            return c.which;
        }
    }
    return &least();
}

static const isa *& chosen() {
    static const isa * c = choose(getenv("VERATUNE_ISA"));
    return c;
}

const isa & best() { return *chosen(); }

}  // namespace vera

bool ggml_vera_use(const char * name) {
    const vera::isa * c = vera::choose(name ? name : getenv("VERATUNE_ISA"));
    if (name && strcmp(name, c->name)) {
        return false;
    }
    vera::chosen() = c;
    return true;
}
