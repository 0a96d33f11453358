// The instruction set that every processor has but Arm's, which have neon.
#pragma once

#define ISA       portable
#define LANES     4
#define REGISTERS 16
#define HAS_BF16  0
#define HAS_VNNI  0
#define HAS_AMX   0
