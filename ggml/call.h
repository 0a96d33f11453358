// The table of veratune's operations, and what a node tells its kernel. C, C++ and CUDA read it, each with its own
// declarations of ggml.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// Each operation: its name, the name as people see it, its kernel on the CPU, and which of ggml_vera_parameters the
// kernel takes. Enumeration, names and every instruction set's list of kernels are made from this table.
// clang-format off
#define GGML_VERA_OPERATIONS(OP)                                                           \
    /* products: linear.hpp, vera.hpp */                                                   \
    OP(LINEAR,             "linear",             linear,             linear)               \
    OP(LINEARS,            "linears",            linears,            linears)              \
    OP(ADD_FACTORED,       "add factored",       add_factored,       factored)             \
    OP(LINEAR_BACK,        "linear back",        linear_back,        linear)               \
    OP(WEIGHT_GRADIENT,    "weight gradient",    weight_gradient,    linear)               \
    OP(MERGE,              "merge",              merge,              linear)               \
    OP(MERGED_GRADIENT,    "merged gradient",    merged_gradient,    linear)               \
    OP(FACTORED_GRADIENT,  "factored gradient",  factored_gradient,  linear)               \
    /* attention.hpp, cached.hpp */                                                        \
    OP(ATTENTION,          "attention",          attention,          attention)            \
    OP(ATTENTION_BACK,     "attention back",     attention_back,     attention)            \
    OP(ATTENTION_CACHED,   "attention cached",   attention_cached,   attention)            \
    /* row by row: rows.hpp */                                                             \
    OP(NORM,               "norm",               norm,               norm)                 \
    OP(NORM_BACK,          "norm back",          norm_back,          norm)                 \
    OP(LAYER_NORM,         "layer norm",         layer_norm,         norm)                 \
    OP(LAYER_NORM_BACK,    "layer norm back",    layer_norm_back,    norm)                 \
    OP(NORM_HEADS,         "norm heads",         norm_heads,         norm_heads)           \
    OP(NORM_HEADS_BACK,    "norm heads back",    norm_heads_back,    norm_heads)           \
    OP(ACTIVATE,           "activate",           activate,           activation)           \
    OP(ACTIVATE_BACK,      "activate back",      activate_back,      activation)           \
    OP(GATED,              "gated",              gated,              activation)           \
    OP(GATED_BACK,         "gated back",         gated_back,         activation)           \
    OP(ROTATE,             "rotate",             rotate,             rotation)             \
    OP(CONVERT,            "convert",            convert,            none)                 \
    OP(CAPPED,             "capped",             capped,             cap)                  \
    OP(CROSS_ENTROPY,      "cross-entropy",      cross_entropy,      cap)                  \
    OP(CROSS_ENTROPY_BACK, "cross-entropy back", cross_entropy_back, cap)                  \
    /* experts.hpp */                                                                      \
    OP(ROUTE,              "route",              route,              none)                 \
    OP(ROUTE_BACK,         "route back",         route_back,         none)                 \
    OP(WEIGH,              "weigh",              weigh,              none)                 \
    OP(EXPERTS,            "experts",            experts,            experts)              \
    /* convolution.hpp */                                                                  \
    OP(CONVOLUTION,        "convolution",        convolution,        none)                 \
    OP(CONVOLUTION_BACK,   "convolution back",   convolution_back,   none)                 \
    OP(CONVOLUTION_CACHED, "convolution cached", convolution_cached, none)                 \
    /* delta.hpp */                                                                        \
    OP(DELTA_NET,          "delta net",          delta_net,          delta_net)            \
    OP(DELTA_NET_BACK,     "delta net back",     delta_net_back,     delta_net)            \
    OP(DELTA_NET_CACHED,   "delta net cached",   delta_net_cached,   delta_net)            \
    OP(GATED_NORM,         "gated norm",         gated_norm,         norm)                 \
    OP(GATED_NORM_BACK,    "gated norm back",    gated_norm_back,    norm)                 \
    /* peak.hpp */                                                                         \
    OP(PEAK,               "peak",               peak,               none)
// clang-format on

enum ggml_vera_operation {
#define GGML_VERA_NUMBER(NAME, shown, kernel, parameters) GGML_VERA_##NAME,
    GGML_VERA_OPERATIONS(GGML_VERA_NUMBER)
#undef GGML_VERA_NUMBER
        GGML_VERA_OPERATION_COUNT
};

// How LINEAR, LINEARS, ADD_FACTORED and EXPERTS compute. In all ways but PLAIN, the results for a column of x are the
// same bits whatever the other columns are and however many; these ways are fast for few columns. ALIKE computes in
// float32. BYTES rounds x to 8 bits, in blocks of 32, where w is quantised. INTERLEAVED is BYTES for a w of q8_0 in
// strips of 16 rows (bytes.hpp). LINEAR_BACK, WEIGHT_GRADIENT, MERGE and the gradients of vectors are PLAIN, or
// INTEGERS: both operands of their product are rounded to integers (integers.hpp).
enum ggml_vera_way { GGML_VERA_PLAIN, GGML_VERA_ALIKE, GGML_VERA_BYTES, GGML_VERA_INTERLEAVED, GGML_VERA_INTEGERS };

// Activations; bindings/rowwise.go has their formulas.
enum ggml_vera_act {
    GGML_VERA_SILU,
    GGML_VERA_GELU,
    GGML_VERA_CLAMPED,
    GGML_VERA_SIGMOID,
    GGML_VERA_ACTIVATIONS  // how many
};

// Parameters, a structure for each kind of operation.

struct ggml_vera_none {
    int32_t unused;  // C has no structure without fields
};

struct ggml_vera_linear {
    int32_t way;  // a ggml_vera_way
};

enum { GGML_VERA_PARTS = 5 };  // the most matrices of a node of several: ggml gives a node 9 sources

struct ggml_vera_part {
    int32_t way;          // a ggml_vera_way
    bool    second;       // the result goes to u
    int32_t column;       // of the result, where the part begins
    int32_t first, rows;  // columns of x
};

struct ggml_vera_linears {
    int32_t               n;
    struct ggml_vera_part part[GGML_VERA_PARTS];
};

struct ggml_vera_factored_layer {
    int32_t column, rank;  // of y and of u, where the layer's parts begin
    int64_t offset;        // of its vectors
};

struct ggml_vera_factored {
    int32_t                         n, way;  // a ggml_vera_way
    struct ggml_vera_factored_layer layer[GGML_VERA_PARTS];
};

struct ggml_vera_experts {
    int32_t way;  // a ggml_vera_way
    bool    back, sum;
};

// Attention of scores S = scale · Q Kᵀ: a token sees the last `window` tokens, itself among them, or all if that is 0.
// Where cap is not 0, scores become cap · tanh(S / cap).
struct ggml_vera_attention {
    int32_t heads, kv_heads, window;
    float   scale, cap;
};

struct ggml_vera_norm {
    float eps;
};

struct ggml_vera_norm_heads {
    int32_t heads, kv_heads;
    float   eps;
};

struct ggml_vera_activation {
    int32_t act;  // a ggml_vera_act
};

struct ggml_vera_rotation {
    int32_t heads, head_dim;
    bool    back;    // rotates by the negative angle
    bool    halves;  // a pair are the same elements of a head's two halves; else neighbours
};

struct ggml_vera_cap {
    float cap;
};

struct ggml_vera_delta_net {
    int32_t keys, values, dim_k, dim_v;  // heads, and their lengths
    float   eps;
};

// An operation reads its own part. They lie side by side, not in a union: Go could not fill that.
struct ggml_vera_parameters {
    struct ggml_vera_none       none;
    struct ggml_vera_linear     linear;
    struct ggml_vera_linears    linears;
    struct ggml_vera_factored   factored;
    struct ggml_vera_experts    experts;
    struct ggml_vera_attention  attention;
    struct ggml_vera_norm       norm;
    struct ggml_vera_norm_heads norm_heads;
    struct ggml_vera_activation activation;
    struct ggml_vera_rotation   rotation;
    struct ggml_vera_cap        cap;
    struct ggml_vera_delta_net  delta_net;
};

// Another number where the table, the parameters or the call change: a backend may come from another build.
enum { GGML_VERA_CALL_VERSION = 0x76657208 };

// What a node tells its kernel: the userdata of its tensor.
struct ggml_vera_call {
    uint32_t                    version;
    enum ggml_vera_operation    op;
    bool                        into;  // dst->src begins with the place of the result, before the operation's sources
    struct ggml_vera_parameters with;
};

#ifdef __cplusplus
namespace vera {

// ggml's numbers of the types that kernels treat on their own.
enum { F32 = 0, I32 = 26, BF16 = 30 };

// A run of a pack's tokens, as graphs have it. The runs are a tree: a token sees all tokens of its run's ancestors, and
// those up to itself in its own run.
struct segment {
    int32_t first, length;
    int32_t parent;  // smaller than its own index, or −1
    int32_t past;    // tokens of all its ancestors
};

}  // namespace vera
#endif
