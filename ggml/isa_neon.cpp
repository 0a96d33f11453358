#include "kernels.h"

#if defined(__aarch64__)

#define ISA       neon
#define LANES     4
#define REGISTERS 32
#define HAS_BF16  0
#define HAS_VNNI  0
#define HAS_AMX   0
#define HAS_DOT   0
#define HAS_I8MM  0

#include "kernels.hpp"

#endif
