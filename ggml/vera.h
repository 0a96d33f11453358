// Operations that veratune adds to ggml. Each is a node made with ggml_custom_4d, whose kernel runs on all threads of
// the CPU backend. call.h lists them.
//
// Shapes are in ggml's order: x [in, tokens] is a row of `in` numbers for each token. "Activations" are float32 or
// bfloat16 with unbroken rows.
#pragma once

#include "capi.h"
#include "call.h"

#ifdef __cplusplus
extern "C" {
#endif

// What the operations of one backend share: the threads' scratch memory. Graphs that use it must not run at the same
// time.
struct ggml_vera;

struct ggml_vera * ggml_vera_new(int threads);
void               ggml_vera_free(struct ggml_vera * vera);

// The instruction set in use: "portable", "avx2", "avx512", "avx512bf16" or "amx"; on Arm "neon", "dotprod", "i8mm" or
// "bf16". bf16 tells whether it multiplies bfloat16 numbers itself.
const char * ggml_vera_isa(void);
bool         ggml_vera_isa_bf16(void);

// The integers to which GGML_VERA_INTEGERS rounds: from −limit to limit, in blocks of `span` values along the common
// dimension of the operands, of k values, that share a scale. Where operands are gradients, every `turned` of them are
// multiplied by a Hadamard matrix first, if that is not 0. fast tells whether this is the fastest way to multiply. All
// are 0 where it does not round.
struct ggml_vera_integers {
    int32_t limit, span, turned;
    bool    fast;
};
struct ggml_vera_integers ggml_vera_isa_integers(int64_t k);

// Uses that instruction set from now on if the processor has it, and tells whether; NULL goes back to the best. No
// graph may be running.
bool ggml_vera_use(const char * isa);

// The calls of the nodes of one context. They must outlive its graphs.
struct ggml_vera_nodes;

struct ggml_vera_nodes * ggml_vera_nodes_new(struct ggml_vera * vera);
void                     ggml_vera_nodes_free(struct ggml_vera_nodes * nodes);

// What a node gives: [ne0, ne1] of a type; in memory of its own, or in that of `into`, which has this type and shape.
struct ggml_vera_result {
    unsigned             type;
    int64_t              ne0, ne1;
    struct ggml_tensor * into;
};

// Makes the node that computes op from n sources, some of which may be NULL. Each kernel says which sources it takes.
// The caller checks types and shapes; nothing here does.
struct ggml_tensor * ggml_vera_make(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                    enum ggml_vera_operation op, struct ggml_vera_parameters with,
                                    struct ggml_vera_result result, struct ggml_tensor ** sources, int n);

// The name of the operation that a context's node computes, or NULL where that is one of ggml's own.
const char * ggml_vera_name(const struct ggml_vera_nodes * nodes, const struct ggml_tensor * node);

// The largest operands of a context's nodes, from which follows what they take beside their results: elements of a
// weight, of activations, and of B; and the floats that a thread keeps for a delta net's gradient, if all rows are one
// text.
struct ggml_vera_largest {
    int64_t matrix, operand, pair, states;
};
struct ggml_vera_largest ggml_vera_largest_of(const struct ggml_vera_nodes * nodes);

// Seconds that each operation has taken since this was last asked, and its name, in the order of the table; at most
// `most` of them. Returns how many.
int ggml_vera_times(struct ggml_vera * vera, const char ** names, double * seconds, int most);

#ifdef __cplusplus
}
#endif
