// The kernels of one instruction set, and what they get to work with.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "vera.h"

// GCC takes the stack for aligned to what vectors of 32 and 64 bytes need, but on Windows it is aligned to 16 only (bug
// 54412). The assembler is told to move vectors without that.
#if defined(_WIN32) && defined(__x86_64__) && !defined(__clang__)
#define MOVE_UNALIGNED(aligned, unaligned) \
    asm(".macro " aligned " operands:vararg\n\t" unaligned " \\operands\n.endm\n");
MOVE_UNALIGNED("vmovaps", "vmovups")
MOVE_UNALIGNED("vmovapd", "vmovupd")
MOVE_UNALIGNED("vmovdqa", "vmovdqu")
MOVE_UNALIGNED("vmovdqa32", "vmovdqu32")
MOVE_UNALIGNED("vmovdqa64", "vmovdqu64")
#undef MOVE_UNALIGNED
#endif

namespace vera {

// One thread's part in computing a node.
struct thread {
    int                          ith, nth;
    struct node *                node;
    ggml_tensor **               src;  // the operation's sources
    const ggml_vera_parameters * with;

    // Memory of this thread, kept from node to node; 64-byte aligned. What it held may be lost when it grows.
    void * scratch(size_t bytes) const;
    // The next of n pieces of work that no thread has taken yet, from 0; n or more if there is none left.
    int64_t take() const;
    // Waits for all threads of the node. take begins at 0 again.
    void barrier() const;
    // Memory that all threads of the node share: one thread asks for its size, and after a barrier all get it with 0.
    // multiply uses `shared`, so that what calls it has `parts`.
    void * shared(size_t bytes) const;
    void * parts(size_t bytes) const;
};

// Hands out parts of a piece of memory; from address 0, it counts how much they take.
struct carver {
    uintptr_t next;

    template <typename T> T * take(int64_t n) {
        T * p = (T *) next;
        next += (n * sizeof(T) + 63) / 64 * 64;
        return p;
    }
};

// Every kernel computes dst from its sources, called by all threads of the backend.
typedef void (*kernel)(const thread & t, ggml_tensor * dst);

struct isa {
    const char * name;
    bool         bf16;  // multiplies bfloat16 numbers itself

    ggml_vera_integers (*integers)(int64_t k);

    kernel kernels[GGML_VERA_OPERATION_COUNT];
};

#if defined(__aarch64__)
extern const isa neon, dotprod, i8mm, bf16;
#else
extern const isa portable;
#endif
// only in builds that test the kernels for graphics processors
extern const isa emulated __attribute__((weak));
#if defined(__x86_64__)
extern const isa avx2, avx512, avx512bf16, amx;
#endif

// The one that every processor has.
inline const isa & least() {
#if defined(__aarch64__)
    return neon;
#else
    return portable;
#endif
}

// The best of them that the processor has and VERATUNE_ISA allows.
const isa & best();

// A row of a tensor of any type, as floats.
inline void to_float(const ggml_tensor * t, const void * from, float * to, int64_t n) {
    if (t->type == F32) {
        memcpy(to, from, n * sizeof(float));
    } else {
        ggml_get_type_traits(t->type)->to_float(from, to, n);
    }
}

}  // namespace vera
