// Operations that veratune adds to ggml. Each is a node made with ggml_custom_4d, whose kernel runs on all threads of
// the CPU backend.
//
// Shapes are in ggml's order: x [in, tokens] is a row of `in` numbers for each token. "Activations" are float32 or
// bfloat16 with unbroken rows. Callers check shapes; nothing here does.
#pragma once

#include "../bindings/capi.h"

#ifdef __cplusplus
extern "C" {
#endif

// What the operations of one backend share: the threads' scratch memory. Graphs that use it must not run at the same
// time.
struct ggml_vera;

struct ggml_vera * ggml_vera_new(int threads);
void               ggml_vera_free(struct ggml_vera * vera);

// The instruction set in use: "portable", "avx2", "avx512", "avx512bf16" or "amx". bf16 tells whether it multiplies
// bfloat16 numbers itself.
const char * ggml_vera_isa(void);
bool         ggml_vera_isa_bf16(void);

// Uses that instruction set from now on if the processor has it, and tells whether; NULL goes back to the best. No
// graph may be running.
bool ggml_vera_use(const char * isa);

// Parameters of the nodes of one context. They must outlive its graphs.
struct ggml_vera_nodes;

struct ggml_vera_nodes * ggml_vera_nodes_new(struct ggml_vera * vera);
void                     ggml_vera_nodes_free(struct ggml_vera_nodes * nodes);

// The largest that the products of a context's nodes have, from which follows what they take beside their results:
// numbers of a weight, of activations, and of B. And the floats that a thread keeps for a delta net's way back, where
// all rows are one text.
struct ggml_vera_largest {
    int64_t matrix, operand, pair, states;
};
struct ggml_vera_largest ggml_vera_largest_of(const struct ggml_vera_nodes * nodes);

// Products. `w` is of any type that dequantises, with unbroken rows; it is unpacked strip by strip straight into the
// kernel's panels. Products are computed in bfloat16 where x is and the processor multiplies that, else in float32;
// sums are float32. type is the result's: F32 or BF16. `acc`, if not NULL, is added: float32 of the result's shape.
// `into`, if not NULL, is where the result goes: of its type and shape, perhaps acc itself.

// Ways of mul_mat. In all but the first, the results for a column of x are the same bits whatever the other columns are
// and however many; they are fast for few columns. ALIKE is in float32; BYTES rounds x to 8 bits, in blocks of 32,
// where w is quantised; for TURNED, w is q8_0 in strips of 16 rows (bytes.hpp).
enum ggml_vera_way { GGML_VERA_PLAIN, GGML_VERA_ALIKE, GGML_VERA_BYTES, GGML_VERA_TURNED };

// w [k, m], x [k, n] → [m, n]: y = W (s ⊙ x) ⊙ t, with s [k] and t [m], float32, or NULL for ones. For TURNED, s [k, l]
// and t [m, l] are those of l layers that share W, whose results are [m · l, n].
struct ggml_tensor * ggml_vera_mul_mat(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                       struct ggml_tensor * w, struct ggml_tensor * x, struct ggml_tensor * s,
                                       struct ggml_tensor * t, struct ggml_tensor * acc, struct ggml_tensor * into,
                                       enum ggml_vera_way way, unsigned type);

// w [k, m], g [m, n] → [k, n]: Wᵀ (s ⊙ g) ⊙ t, with s [m] and t [k].
struct ggml_tensor * ggml_vera_mul_mat_back(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                            struct ggml_tensor * w, struct ggml_tensor * g, struct ggml_tensor * s,
                                            struct ggml_tensor * t, struct ggml_tensor * acc, struct ggml_tensor * into,
                                            unsigned type);

// g [m, n], x [k, n] of one type → [k, m]: the weight's gradient G = Σ_tokens g xᵀ.
struct ggml_tensor * ggml_vera_weight_grad(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                           struct ggml_tensor * g, struct ggml_tensor * x, unsigned type);

// Writes W + diag(b) B diag(d) A into dst [k, m], F32 or BF16, the type that the product is computed in, and is dst
// afterwards. w [k, m], A [≥ k, r], B [r, ≥ m], b [m], d [r]; with b and d NULL it is W alone.
struct ggml_tensor * ggml_vera_merge(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                     struct ggml_tensor * dst, struct ggml_tensor * w, struct ggml_tensor * a,
                                     struct ggml_tensor * rows, struct ggml_tensor * b, struct ggml_tensor * d);

// The gradients of b and d: ∂b [m], then ∂d [r], in one tensor [m + r]. B is [r, ≥ m]. From the weight's gradient G
// [k, m] and A [≥ k, r], with T = A G, or from g [m, n] and u = A x [r, n], with T = u gᵀ, both T are [r, m]: with E =
// B ⊙ T, ∂b = E d and ∂d = Eᵀ b. (Write the sum of G ⊙ diag(b) B diag(d) A out and derive it.)
struct ggml_tensor * ggml_vera_merged_grad(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                           struct ggml_tensor * grad, struct ggml_tensor * a, struct ggml_tensor * rows,
                                           struct ggml_tensor * b, struct ggml_tensor * d);
struct ggml_tensor * ggml_vera_factored_grad(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                             struct ggml_tensor * g, struct ggml_tensor * u, struct ggml_tensor * rows,
                                             struct ggml_tensor * b, struct ggml_tensor * d);

// How attention is made of scores S = scale · Q Kᵀ: of the last `window` tokens that a token sees, itself among them,
// or of all where that is 0, and of cap · tanh(S / cap) where cap is not 0. Where an operation takes sinks [heads],
// float32, and not NULL, each token sees one score more, its head's sink, to which no value belongs.
struct ggml_vera_heads {
    int   query, kv, window;
    float scale, cap;
};

// Causal attention of packed samples, softmax(S) V for each head. qkv [dim · (heads + 2 · KV heads), tokens]: the
// heads' queries, then the KV heads' keys, then their values. segments [4, n], int32, cuts the tokens into runs, a
// tree: of each its first token, its length, its parent's index, which is smaller than its own, or -1, and the number
// of tokens in all its ancestors. A token sees all of the ancestors' tokens and those up to itself in its own segment.
// → [dim · heads, tokens] of that type, F32 or BF16. Everything is computed in float32.
struct ggml_tensor * ggml_vera_attention(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                         struct ggml_tensor * qkv, struct ggml_tensor * segments,
                                         struct ggml_tensor * sinks, struct ggml_vera_heads heads, unsigned type);

// The gradient of qkv, float32, for the gradient dout of attention's result.
struct ggml_tensor * ggml_vera_attention_back(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                              struct ggml_tensor * dout, struct ggml_tensor * qkv,
                                              struct ggml_tensor * segments, struct ggml_tensor * sinks,
                                              struct ggml_vera_heads heads);

// The same for rows that continue texts, each with a place in a cache: keys and values [dim · room, texts · KV heads],
// float32 or float16, where `dim` is a head's numbers filled up to a multiple of 16, and `room`, another one, the
// tokens that a text may have. rows [2, n], int32: of each column of qkv, float32, its text and its position there;
// rows of a text follow each other, without a gap from what the cache holds. Their keys and values are put into the
// cache.
struct ggml_tensor * ggml_vera_attention_cached(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                                struct ggml_tensor * qkv, struct ggml_tensor * keys,
                                                struct ggml_tensor * values, struct ggml_tensor * rows,
                                                struct ggml_tensor * sinks, struct ggml_vera_heads heads,
                                                unsigned type);

// Row by row, in float32 inside. bindings/rows.go has their formulas and shapes, and which activation is which; acc may
// be NULL.
struct ggml_tensor * ggml_vera_norm(struct ggml_context * ctx, struct ggml_vera_nodes * nodes, struct ggml_tensor * x,
                                    struct ggml_tensor * w, float eps, unsigned type);
struct ggml_tensor * ggml_vera_norm_back(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                         struct ggml_tensor * dy, struct ggml_tensor * x, struct ggml_tensor * w,
                                         struct ggml_tensor * acc, float eps);
struct ggml_tensor * ggml_vera_layer_norm(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                          struct ggml_tensor * x, struct ggml_tensor * w, struct ggml_tensor * b,
                                          float eps, unsigned type);
struct ggml_tensor * ggml_vera_layer_norm_back(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                               struct ggml_tensor * dy, struct ggml_tensor * x, struct ggml_tensor * w,
                                               struct ggml_tensor * acc, float eps);
struct ggml_tensor * ggml_vera_norm_heads(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                          struct ggml_tensor * x, struct ggml_tensor * q, struct ggml_tensor * k,
                                          int heads, int kv_heads, float eps, unsigned type);
struct ggml_tensor * ggml_vera_norm_heads_back(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                               struct ggml_tensor * dy, struct ggml_tensor * x, struct ggml_tensor * q,
                                               struct ggml_tensor * k, int heads, int kv_heads, float eps,
                                               unsigned type);
struct ggml_tensor * ggml_vera_activate(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                        struct ggml_tensor * x, int act, unsigned type);
struct ggml_tensor * ggml_vera_activate_back(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                             struct ggml_tensor * dy, struct ggml_tensor * x, int act, unsigned type);
struct ggml_tensor * ggml_vera_gated(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                     struct ggml_tensor * gate_up, int act, unsigned type);
struct ggml_tensor * ggml_vera_gated_back(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                          struct ggml_tensor * dy, struct ggml_tensor * gate_up, int act,
                                          unsigned type);
struct ggml_tensor * ggml_vera_rotate(struct ggml_context * ctx, struct ggml_vera_nodes * nodes, struct ggml_tensor * x,
                                      struct ggml_tensor * table, int heads, int head_dim, bool halves, bool back,
                                      unsigned type);
struct ggml_tensor * ggml_vera_convert(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                       struct ggml_tensor * x, unsigned type);
struct ggml_tensor * ggml_vera_capped(struct ggml_context * ctx, struct ggml_vera_nodes * nodes, struct ggml_tensor * x,
                                      float cap);
struct ggml_tensor * ggml_vera_cross_entropy(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                             struct ggml_tensor * logits, struct ggml_tensor * labels, float cap);
struct ggml_tensor * ggml_vera_cross_entropy_back(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                                  struct ggml_tensor * logits, struct ggml_tensor * labels, float cap,
                                                  unsigned type);

// A mixture of experts; bindings/experts.go has formulas and shapes. routes [2 · used, rows], float32, are of each row
// the experts that it chose, then their weights. The products are with w [in, out, experts]: of each choice of a row,
// or their sum, with acc or NULL, float32; back is with the transposed.
struct ggml_tensor * ggml_vera_route(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                     struct ggml_tensor * logits, int used);
struct ggml_tensor * ggml_vera_route_back(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                          struct ggml_tensor * dy, struct ggml_tensor * h, struct ggml_tensor * routes,
                                          int64_t experts);
struct ggml_tensor * ggml_vera_weigh(struct ggml_context * ctx, struct ggml_vera_nodes * nodes, struct ggml_tensor * h,
                                     struct ggml_tensor * routes, unsigned type);
struct ggml_tensor * ggml_vera_experts(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                       struct ggml_tensor * w, struct ggml_tensor * x, struct ggml_tensor * routes,
                                       struct ggml_tensor * acc, struct ggml_tensor * into, enum ggml_vera_way way,
                                       bool back, bool sum, unsigned type);

// A causal convolution of every column for itself; bindings/convolution.go has formulas and shapes.
struct ggml_tensor * ggml_vera_convolution(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                           struct ggml_tensor * x, struct ggml_tensor * w,
                                           struct ggml_tensor * segments, unsigned type);
struct ggml_tensor * ggml_vera_convolution_back(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                                struct ggml_tensor * dy, struct ggml_tensor * w,
                                                struct ggml_tensor * segments);
struct ggml_tensor * ggml_vera_convolution_cached(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                                  struct ggml_tensor * x, struct ggml_tensor * w,
                                                  struct ggml_tensor * state, struct ggml_tensor * rows, unsigned type);

// A gated delta net and its gated norm; bindings/delta.go has formulas and shapes. The gradients of qkv, a and b, and
// those of x and z, lie side by side in one result.
struct ggml_vera_delta {
    int   keys, values, dim_k, dim_v;
    float eps;
};
struct ggml_tensor * ggml_vera_delta_net(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                         struct ggml_tensor * qkv, struct ggml_tensor * a, struct ggml_tensor * b,
                                         struct ggml_tensor * decay, struct ggml_tensor * bias,
                                         struct ggml_tensor * segments, struct ggml_vera_delta heads, unsigned type);
struct ggml_tensor * ggml_vera_delta_net_back(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                              struct ggml_tensor * dy, struct ggml_tensor * qkv, struct ggml_tensor * a,
                                              struct ggml_tensor * b, struct ggml_tensor * decay,
                                              struct ggml_tensor * bias, struct ggml_tensor * segments,
                                              struct ggml_vera_delta heads);
struct ggml_tensor * ggml_vera_delta_net_cached(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                                struct ggml_tensor * qkv, struct ggml_tensor * a,
                                                struct ggml_tensor * b, struct ggml_tensor * decay,
                                                struct ggml_tensor * bias, struct ggml_tensor * states,
                                                struct ggml_tensor * rows, struct ggml_vera_delta heads, unsigned type);
struct ggml_tensor * ggml_vera_gated_norm(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                          struct ggml_tensor * x, struct ggml_tensor * z, struct ggml_tensor * w,
                                          float eps, unsigned type);
struct ggml_tensor * ggml_vera_gated_norm_back(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                               struct ggml_tensor * dy, struct ggml_tensor * x, struct ggml_tensor * z,
                                               struct ggml_tensor * w, float eps, unsigned type);

// The name of the operation that a context's node computes, or NULL where that is one of ggml's own.
const char * ggml_vera_name(const struct ggml_vera_nodes * nodes, const struct ggml_tensor * node);

// [1]: how many operations the processor's registers made in computing it, in bfloat16 where x is, else in float32; for
// measuring what is possible.
struct ggml_tensor * ggml_vera_peak(struct ggml_context * ctx, struct ggml_vera_nodes * nodes, struct ggml_tensor * x);

// Seconds that each kind of operation has taken since it was last asked, in the order of their names, whose number it
// returns. Names of NULL are passed over.
int ggml_vera_times(struct ggml_vera * vera, const char ** names, double * seconds, int most);

#ifdef __cplusplus
}
#endif
