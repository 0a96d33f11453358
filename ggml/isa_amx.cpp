#include "kernels.h"

// GCC's tile instructions take strides of 64 bits, which a long has not on Windows.
#if defined(__x86_64__) && !defined(_WIN32)

#if defined(__clang__)
#pragma clang attribute push(                                                                                 \
    __attribute__((                                                                                           \
        target("amx-tile,amx-bf16,avx512bf16,avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), \
    apply_to = function)
#else
#pragma GCC target("amx-tile,amx-bf16,avx512bf16,avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#endif

#define ISA       amx
#define LANES     16
#define REGISTERS 32
#define HAS_BF16  1
#define HAS_VNNI  1
#define HAS_AMX   1

#include "kernels.hpp"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
