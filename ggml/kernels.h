// The kernels of one instruction set, and what they get to work with.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "call.h"
#include "vera.h"

namespace vera {

// One thread's part in computing a node.
struct thread {
    int           ith, nth;
    struct node * node;
    // of the operation; where the result goes into a given place, dst->src has that place before them
    ggml_tensor **     src;
    const parameters * with;  // the operation's

    // Memory of this thread's own, kept from node to node; 64-byte aligned. What it held before may be lost.
    void * scratch(size_t bytes) const;
    // The next piece of work out of n that no thread has taken yet, from 0; n or more if there is none left.
    int64_t take() const;
    // Waits for all threads of the node. Pieces are counted anew behind it.
    void barrier() const;
    // Memory that all threads of the node share: one thread makes it that large, and after a barrier all find it with
    // 0. multiply uses `shared`, so that what calls it has `parts`.
    void * shared(size_t bytes) const;
    void * parts(size_t bytes) const;
};

// Every kernel computes dst from its sources, called by all threads of the backend.
typedef void (*kernel)(const thread & t, ggml_tensor * dst);

struct isa {
    const char * name;
    bool         bf16;  // multiplies bfloat16 numbers itself
    kernel       kernels[OPERATIONS];
};

extern const isa portable;
// not there but in builds that test the kernels for graphics processors
extern const isa emulated __attribute__((weak));
#if defined(__x86_64__)
extern const isa avx2, avx512, avx512bf16, amx;
#endif

// The best of them that the processor has and VERATUNE_ISA allows.
const isa & best();

// The row of floats behind a tensor's row.
inline void to_float(const ggml_tensor * t, const void * from, float * to, int64_t n) {
    if (t->type == F32) {
        memcpy(to, from, n * sizeof(float));
    } else {
        ggml_get_type_traits(t->type)->to_float(from, to, n);
    }
}

}  // namespace vera
