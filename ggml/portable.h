// The instruction set that every processor has.
#pragma once

#define ISA   portable
#define LANES 4
#if defined(__aarch64__)
#define REGISTERS 32
#else
#define REGISTERS 16
#endif
#define HAS_BF16 0
#define HAS_VNNI 0
#define HAS_AMX  0
