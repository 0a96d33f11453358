// What a node of veratune's own says to its kernel, whichever processor that is for, and whichever declarations of ggml
// stand before it.
#pragma once

#include <cstdint>

namespace vera {

enum operation {
    MUL_MAT,
    MUL_MAT_BACK,
    WEIGHT_GRAD,
    MERGE,
    MERGED_GRAD,
    FACTORED_GRAD,
    ATTENTION,
    ATTENTION_BACK,
    ATTENTION_CACHED,
    NORM,
    NORM_BACK,
    LAYER_NORM,
    LAYER_NORM_BACK,
    NORM_HEADS,
    NORM_HEADS_BACK,
    ACTIVATE,
    ACTIVATE_BACK,
    GATED,
    GATED_BACK,
    ROTATE,
    CONVERT,
    CAPPED,
    CROSS_ENTROPY,
    CROSS_ENTROPY_BACK,
    ROUTE,
    ROUTE_BACK,
    WEIGH,
    EXPERTS,
    CONVOLUTION,
    CONVOLUTION_BACK,
    CONVOLUTION_CACHED,
    DELTA_NET,
    DELTA_NET_BACK,
    DELTA_NET_CACHED,
    GATED_NORM,
    GATED_NORM_BACK,
    PEAK,
    OPERATIONS
};

// Numbers that an operation is made with; which is which, its kernel says.
struct parameters {
    int32_t i[4];
    float   f[2];
};

// What a node tells its kernel: the userdata of its tensor.
struct call {
    // another one where this, parameters or operations change: a backend may come from another build
    enum { VERSION = 0x76657205 };
    uint32_t   version = VERSION;
    operation  op;
    bool       into;  // the result goes into a given place, which dst->src has before the operation's sources
    parameters with = {};

    call(operation o, bool i) : op(o), into(i) {}
};

// ggml's type numbers that the kernels treat on their own.
enum { F32 = 0, BF16 = 30 };

enum { SILU = 0, GELU = 1, CLAMPED = 2, SIGMOID = 3 };  // activations: bindings/rows.go has them

enum { PLAIN = 0 };  // the way of MUL_MAT that every processor has

}  // namespace vera
