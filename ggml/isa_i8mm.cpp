#include "kernels.h"

#if defined(__aarch64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("arch=armv8.2-a+dotprod+i8mm"))), apply_to = function)
#else
#pragma GCC target("arch=armv8.2-a+dotprod+i8mm")
#endif

#define ISA       i8mm
#define LANES     4
#define REGISTERS 32
#define HAS_BF16  0
#define HAS_VNNI  0
#define HAS_AMX   0
#define HAS_DOT   1
#define HAS_I8MM  1

#include "kernels.hpp"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
