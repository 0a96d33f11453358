#include "kernels.h"

#include <cstdlib>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace vera {

struct candidate {
    const isa * which;
    bool (*available)();
};

#if defined(__x86_64__)

static bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

static bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static bool has_avx512bf16() {
    return has_avx512() && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
}

// Linux must be asked for tile registers once a process.
static bool has_amx() {
#if defined(__linux__)
    enum { TILES = 18, REQUEST = 0x1023 };  // ARCH_REQ_XCOMP_PERM of arch_prctl(2)
    unsigned a, b, c, d;
    if (!has_avx512bf16() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        return false;
    }
    const bool bf16 = d >> 22 & 1, tiles = d >> 24 & 1;
    return bf16 && tiles && syscall(SYS_arch_prctl, REQUEST, TILES) == 0;
#else
    return false;
#endif
}

static const candidate candidates[] = {
    { &amx, has_amx }, { &avx512bf16, has_avx512bf16 }, { &avx512, has_avx512 }, { &avx2, has_avx2 }
};

#else

static const candidate candidates[] = { { &portable, [] { return true; } } };

#endif

// The best instruction set that the processor has and that is not better than `most`; NULL allows all. An unknown name
// allows only the portable one.
static const isa * choose(const char * most) {
    if (&emulated && most && !strcmp(most, emulated.name)) {
        return &emulated;
    }
    bool allowed = !most || !*most;
    for (const candidate & c : candidates) {
        allowed = allowed || !strcmp(most, c.which->name);
        if (allowed && c.available()) {
            return c.which;
        }
    }
    return &portable;
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
