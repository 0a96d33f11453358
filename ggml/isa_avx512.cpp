#include "kernels.h"

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#endif

#define ISA       avx512
#define LANES     16
#define REGISTERS 32
#define HAS_BF16  0
#define HAS_VNNI  0
#define HAS_AMX   0

#include "kernels.hpp"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
