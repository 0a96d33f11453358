#include "kernels.h"

#include <chrono>
#include <cstdlib>
#include <deque>
#include <thread>
#include <vector>

namespace vera {

// Memory that only grows. The address sanitizer gets memory of just the size each time, to see what goes beyond and
// what is used too long.
struct memory {
#if defined(__SANITIZE_ADDRESS__)
    enum { KEPT = 0, STEP = 64 };
#else
    enum { KEPT = 1, STEP = 4096 };
#endif
    void * at   = nullptr;
    size_t size = 0;

    void * get(size_t bytes) {
        if (bytes > size * KEPT) {
            free(at);
            size = (bytes + STEP - 1) / STEP * STEP;
            at   = aligned_alloc(64, size);
            if (!at) {
                abort();  // as ggml does where its own work memory is not to be had
            }
        }
        return at;
    }

    ~memory() { free(at); }
};

static const char * const operation_names[OPERATIONS] = {
    "linear",
    "linear back",
    "weight gradient",
    "merge",
    "merged gradient",
    "factored gradient",
    "attention",
    "attention back",
    "attention",
    "norm",
    "norm back",
    "layer norm",
    "layer norm back",
    "norm of heads",
    "norm of heads back",
    "activate",
    "activate back",
    "gated",
    "gated back",
    "rotate",
    "convert",
    "capped",
    "cross-entropy",
    "cross-entropy back",
    "route",
    "route back",
    "weigh",
    "experts",
    "convolution",
    "convolution back",
    "convolution",
    "delta net",
    "delta net back",
    "delta net",
    "gated norm",
    "gated norm back",
    "peak",
};

struct node : call {
    ggml_vera *          vera;
    const ggml_tensor *  dst = nullptr;
    std::atomic<int64_t> next{ 0 };
    std::atomic<int>     waiting{ 0 }, turn{ 0 }, left{ 0 };

    node(ggml_vera * v, operation o, bool i) : call(o, i), vera(v) {}
};

static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

}  // namespace vera

using namespace vera;

static_assert((int) PLAIN == (int) GGML_VERA_PLAIN, "call.h has another number");

struct ggml_vera {
    std::vector<memory> scratch;
    memory              shared, parts;
    double              seconds[OPERATIONS] = {};
};

struct ggml_vera_nodes {
    ggml_vera *      vera;
    std::deque<node> all;
};

namespace vera {

void * thread::scratch(size_t bytes) const { return node->vera->scratch[ith].get(bytes); }

void * thread::shared(size_t bytes) const { return node->vera->shared.get(bytes); }

void * thread::parts(size_t bytes) const { return node->vera->parts.get(bytes); }

int64_t thread::take() const { return node->next.fetch_add(1, std::memory_order_relaxed); }

void thread::barrier() const {
    const int turn = node->turn.load();
    if (node->waiting.fetch_add(1) == nth - 1) {
        node->waiting = 0;
        node->next    = 0;
        node->turn    = turn + 1;
        return;
    }
    // Whoever waits long lets others have the processor.
    for (int spins = 0; node->turn.load() == turn; spins++) {
        if (spins < 1000) {
            pause();
        } else {
            std::this_thread::yield();
        }
    }
}

static void run(ggml_tensor * dst, int ith, int nth, void * userdata) {
    struct node * n     = static_cast<struct node *>((call *) userdata);
    const auto    start = std::chrono::steady_clock::now();
    best().kernels[n->op]({ ith, nth, n, dst->src + n->into, &n->with }, dst);
    if (n->left.fetch_add(1) == nth - 1) {  // the last to leave
        n->left = 0;
        n->next = 0;
        n->vera->seconds[n->op] += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
}

}  // namespace vera

struct ggml_vera * ggml_vera_new(int threads) {
    ggml_vera * v = new ggml_vera;
    v->scratch.resize(threads);
    return v;
}

void ggml_vera_free(struct ggml_vera * v) { delete v; }

const char * ggml_vera_isa(void) { return best().name; }

bool ggml_vera_isa_bf16(void) { return best().bf16; }

struct ggml_vera_nodes * ggml_vera_nodes_new(struct ggml_vera * v) {
    ggml_vera_nodes * n = new ggml_vera_nodes;
    n->vera             = v;
    return n;
}

void ggml_vera_nodes_free(struct ggml_vera_nodes * n) { delete n; }

// A node that computes op from its sources, into a tensor of its own or into another's memory.
static struct ggml_tensor * make(struct ggml_context * ctx, ggml_vera_nodes * nodes, operation op,
                                 struct ggml_tensor * into, unsigned type, int64_t ne0, int64_t ne1,
                                 std::vector<ggml_tensor *> args) {
    nodes->all.emplace_back(nodes->vera, op, into != nullptr);
    call *        with = &nodes->all.back();
    ggml_tensor * dst = into ? ggml_custom_inplace(ctx, into, args.data(), (int) args.size(), run, -1, with)
                             : ggml_custom_4d(ctx, type, ne0, ne1, 1, 1, args.data(), (int) args.size(), run, -1, with);
    nodes->all.back().dst = dst;
    return dst;
}

struct ggml_vera_largest ggml_vera_largest_of(const struct ggml_vera_nodes * nodes) {
    struct ggml_vera_largest n   = {};
    const auto               see = [](int64_t & most, int64_t x) { most = x > most ? x : most; };
    const auto               all = [](const ggml_tensor * t) { return t->ne[0] * t->ne[1]; };
    for (const node & x : nodes->all) {
        ggml_tensor * const * src = x.dst->src + x.into;
        switch (x.op) {
        case MUL_MAT:
        case MUL_MAT_BACK:
            see(n.matrix, all(src[0]));
            see(n.operand, all(src[1]));
            break;
        case WEIGHT_GRAD: see(n.operand, all(src[0])); break;
        case EXPERTS:  // of one, which all rows may choose
            see(n.matrix, all(src[0]));
            see(n.operand, src[1]->ne[0] * src[2]->ne[1]);
            break;
        case MERGE:
            see(n.matrix, all(src[0]));
            if (src[2]) {
                see(n.pair, all(src[2]));
            }
            break;
        case MERGED_GRAD:
        case FACTORED_GRAD: see(n.pair, all(src[2])); break;
        case DELTA_NET_BACK: {  // of each span, the memory and W of a key head's value heads (delta.hpp)
            enum { SPAN = 64, WIDEST = 16 };
            const auto    whole = [](int64_t x) { return (x + WIDEST - 1) / WIDEST * WIDEST; };
            const int64_t spans = (x.dst->ne[1] + SPAN - 1) / SPAN + src[6]->ne[1];
            see(n.states,
                spans * (x.with.i[1] / x.with.i[0]) * (whole(x.with.i[2]) + SPAN) * (whole(x.with.i[3]) + WIDEST));
            break;
        }
        default: break;
        }
    }
    return n;
}

struct ggml_tensor * ggml_vera_mul_mat(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                       struct ggml_tensor * w, struct ggml_tensor * x, struct ggml_tensor * s,
                                       struct ggml_tensor * t, struct ggml_tensor * acc, struct ggml_tensor * into,
                                       enum ggml_vera_way way, unsigned type) {
    ggml_tensor * y =
        make(ctx, nodes, MUL_MAT, into, type, w->ne[1] * (s ? s->ne[1] : 1), x->ne[1], { w, x, s, t, acc });
    nodes->all.back().with = { { way }, {} };
    return y;
}

struct ggml_tensor * ggml_vera_mul_mat_back(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                            struct ggml_tensor * w, struct ggml_tensor * g, struct ggml_tensor * s,
                                            struct ggml_tensor * t, struct ggml_tensor * acc, struct ggml_tensor * into,
                                            unsigned type) {
    return make(ctx, nodes, MUL_MAT_BACK, into, type, w->ne[0], g->ne[1], { w, g, s, t, acc });
}

struct ggml_tensor * ggml_vera_weight_grad(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                           struct ggml_tensor * g, struct ggml_tensor * x, unsigned type) {
    return make(ctx, nodes, WEIGHT_GRAD, nullptr, type, x->ne[0], g->ne[0], { g, x });
}

struct ggml_tensor * ggml_vera_merge(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                     struct ggml_tensor * dst, struct ggml_tensor * w, struct ggml_tensor * a,
                                     struct ggml_tensor * rows, struct ggml_tensor * b, struct ggml_tensor * d) {
    return make(ctx, nodes, MERGE, dst, dst->type, 0, 0, { w, a, rows, b, d });
}

struct ggml_tensor * ggml_vera_merged_grad(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                           struct ggml_tensor * grad, struct ggml_tensor * a, struct ggml_tensor * rows,
                                           struct ggml_tensor * b, struct ggml_tensor * d) {
    return make(ctx, nodes, MERGED_GRAD, nullptr, F32, b->ne[0] + d->ne[0], 1, { grad, a, rows, b, d });
}

struct ggml_tensor * ggml_vera_factored_grad(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                             struct ggml_tensor * g, struct ggml_tensor * u, struct ggml_tensor * rows,
                                             struct ggml_tensor * b, struct ggml_tensor * d) {
    return make(ctx, nodes, FACTORED_GRAD, nullptr, F32, b->ne[0] + d->ne[0], 1, { g, u, rows, b, d });
}

static parameters with_heads(const struct ggml_vera_heads & h) {
    return { { h.query, h.kv, h.window }, { h.scale, h.cap } };
}

static int64_t result_width(const ggml_tensor * qkv, const struct ggml_vera_heads & h) {
    return qkv->ne[0] / (h.query + 2 * h.kv) * h.query;
}

struct ggml_tensor * ggml_vera_attention(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                         struct ggml_tensor * qkv, struct ggml_tensor * segments,
                                         struct ggml_tensor * sinks, struct ggml_vera_heads heads, unsigned type) {
    ggml_tensor * y =
        make(ctx, nodes, ATTENTION, nullptr, type, result_width(qkv, heads), qkv->ne[1], { qkv, segments, sinks });
    nodes->all.back().with = with_heads(heads);
    return y;
}

struct ggml_tensor * ggml_vera_attention_back(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                              struct ggml_tensor * dout, struct ggml_tensor * qkv,
                                              struct ggml_tensor * segments, struct ggml_tensor * sinks,
                                              struct ggml_vera_heads heads) {
    ggml_tensor * y =
        make(ctx, nodes, ATTENTION_BACK, nullptr, F32, qkv->ne[0], qkv->ne[1], { dout, qkv, segments, sinks });
    nodes->all.back().with = with_heads(heads);
    return y;
}

struct ggml_tensor * ggml_vera_attention_cached(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                                struct ggml_tensor * qkv, struct ggml_tensor * keys,
                                                struct ggml_tensor * values, struct ggml_tensor * rows,
                                                struct ggml_tensor * sinks, struct ggml_vera_heads heads,
                                                unsigned type) {
    ggml_tensor * y        = make(ctx, nodes, ATTENTION_CACHED, nullptr, type, result_width(qkv, heads), qkv->ne[1],
                                  { qkv, keys, values, rows, sinks });
    nodes->all.back().with = with_heads(heads);
    return y;
}

struct ggml_tensor * ggml_vera_norm(struct ggml_context * ctx, struct ggml_vera_nodes * nodes, struct ggml_tensor * x,
                                    struct ggml_tensor * w, float eps, unsigned type) {
    ggml_tensor * y        = make(ctx, nodes, NORM, nullptr, type, x->ne[0], x->ne[1], { x, w });
    nodes->all.back().with = { {}, { eps } };
    return y;
}

struct ggml_tensor * ggml_vera_norm_back(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                         struct ggml_tensor * dy, struct ggml_tensor * x, struct ggml_tensor * w,
                                         struct ggml_tensor * acc, float eps) {
    ggml_tensor * y        = make(ctx, nodes, NORM_BACK, nullptr, F32, x->ne[0], x->ne[1], { dy, x, w, acc });
    nodes->all.back().with = { {}, { eps } };
    return y;
}

struct ggml_tensor * ggml_vera_layer_norm(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                          struct ggml_tensor * x, struct ggml_tensor * w, struct ggml_tensor * b,
                                          float eps, unsigned type) {
    ggml_tensor * y        = make(ctx, nodes, LAYER_NORM, nullptr, type, x->ne[0], x->ne[1], { x, w, b });
    nodes->all.back().with = { {}, { eps } };
    return y;
}

struct ggml_tensor * ggml_vera_layer_norm_back(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                               struct ggml_tensor * dy, struct ggml_tensor * x, struct ggml_tensor * w,
                                               struct ggml_tensor * acc, float eps) {
    ggml_tensor * y        = make(ctx, nodes, LAYER_NORM_BACK, nullptr, F32, x->ne[0], x->ne[1], { dy, x, w, acc });
    nodes->all.back().with = { {}, { eps } };
    return y;
}

struct ggml_tensor * ggml_vera_norm_heads(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                          struct ggml_tensor * x, struct ggml_tensor * q, struct ggml_tensor * k,
                                          int n_heads, int kv_heads, float eps, unsigned type) {
    ggml_tensor * y        = make(ctx, nodes, NORM_HEADS, nullptr, type, x->ne[0], x->ne[1], { x, q, k });
    nodes->all.back().with = { { n_heads, kv_heads }, { eps } };
    return y;
}

struct ggml_tensor * ggml_vera_norm_heads_back(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                               struct ggml_tensor * dy, struct ggml_tensor * x, struct ggml_tensor * q,
                                               struct ggml_tensor * k, int n_heads, int kv_heads, float eps,
                                               unsigned type) {
    ggml_tensor * y        = make(ctx, nodes, NORM_HEADS_BACK, nullptr, type, x->ne[0], x->ne[1], { dy, x, q, k });
    nodes->all.back().with = { { n_heads, kv_heads }, { eps } };
    return y;
}

struct ggml_tensor * ggml_vera_activate(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                        struct ggml_tensor * x, int act, unsigned type) {
    ggml_tensor * y        = make(ctx, nodes, ACTIVATE, nullptr, type, x->ne[0], x->ne[1], { x });
    nodes->all.back().with = { { act }, {} };
    return y;
}

struct ggml_tensor * ggml_vera_activate_back(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                             struct ggml_tensor * dy, struct ggml_tensor * x, int act, unsigned type) {
    ggml_tensor * y        = make(ctx, nodes, ACTIVATE_BACK, nullptr, type, x->ne[0], dy->ne[1], { dy, x });
    nodes->all.back().with = { { act }, {} };
    return y;
}

struct ggml_tensor * ggml_vera_gated(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                     struct ggml_tensor * gate_up, int act, unsigned type) {
    ggml_tensor * y        = make(ctx, nodes, GATED, nullptr, type, gate_up->ne[0] / 2, gate_up->ne[1], { gate_up });
    nodes->all.back().with = { { act }, {} };
    return y;
}

struct ggml_tensor * ggml_vera_gated_back(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                          struct ggml_tensor * dy, struct ggml_tensor * gate_up, int act,
                                          unsigned type) {
    ggml_tensor * y        = make(ctx, nodes, GATED_BACK, nullptr, type, gate_up->ne[0], dy->ne[1], { dy, gate_up });
    nodes->all.back().with = { { act }, {} };
    return y;
}

struct ggml_tensor * ggml_vera_rotate(struct ggml_context * ctx, struct ggml_vera_nodes * nodes, struct ggml_tensor * x,
                                      struct ggml_tensor * table, int heads, int head_dim, bool halves, bool back,
                                      unsigned type) {
    ggml_tensor * y        = make(ctx, nodes, ROTATE, nullptr, type, x->ne[0], x->ne[1], { x, table });
    nodes->all.back().with = { { heads, head_dim, back, halves }, {} };
    return y;
}

struct ggml_tensor * ggml_vera_convert(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                       struct ggml_tensor * x, unsigned type) {
    return make(ctx, nodes, CONVERT, nullptr, type, x->ne[0], x->ne[1], { x });
}

struct ggml_tensor * ggml_vera_capped(struct ggml_context * ctx, struct ggml_vera_nodes * nodes, struct ggml_tensor * x,
                                      float cap) {
    ggml_tensor * y        = make(ctx, nodes, CAPPED, nullptr, F32, x->ne[0], x->ne[1], { x });
    nodes->all.back().with = { {}, { cap } };
    return y;
}

struct ggml_tensor * ggml_vera_cross_entropy(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                             struct ggml_tensor * logits, struct ggml_tensor * labels, float cap) {
    ggml_tensor * y        = make(ctx, nodes, CROSS_ENTROPY, nullptr, F32, logits->ne[1], 1, { logits, labels });
    nodes->all.back().with = { {}, { cap } };
    return y;
}

struct ggml_tensor * ggml_vera_cross_entropy_back(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                                  struct ggml_tensor * logits, struct ggml_tensor * labels, float cap,
                                                  unsigned type) {
    ggml_tensor * y =
        make(ctx, nodes, CROSS_ENTROPY_BACK, nullptr, type, logits->ne[0], logits->ne[1], { logits, labels });
    nodes->all.back().with = { {}, { cap } };
    return y;
}

struct ggml_tensor * ggml_vera_route(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                     struct ggml_tensor * logits, int used) {
    return make(ctx, nodes, ROUTE, nullptr, F32, 2 * used, logits->ne[1], { logits });
}

struct ggml_tensor * ggml_vera_route_back(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                          struct ggml_tensor * dy, struct ggml_tensor * h, struct ggml_tensor * routes,
                                          int64_t n) {
    return make(ctx, nodes, ROUTE_BACK, nullptr, F32, n, routes->ne[1], { dy, h, routes });
}

struct ggml_tensor * ggml_vera_weigh(struct ggml_context * ctx, struct ggml_vera_nodes * nodes, struct ggml_tensor * h,
                                     struct ggml_tensor * routes, unsigned type) {
    return make(ctx, nodes, WEIGH, nullptr, type, h->ne[0], h->ne[1], { h, routes });
}

struct ggml_tensor * ggml_vera_experts(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                       struct ggml_tensor * w, struct ggml_tensor * x, struct ggml_tensor * routes,
                                       struct ggml_tensor * acc, struct ggml_tensor * into, enum ggml_vera_way way,
                                       bool back, bool sum, unsigned type) {
    const int64_t rows     = sum ? routes->ne[1] : routes->ne[1] * (routes->ne[0] / 2);
    ggml_tensor * y        = make(ctx, nodes, EXPERTS, into, type, w->ne[back ? 0 : 1], rows, { w, x, routes, acc });
    nodes->all.back().with = { { way, back, sum }, {} };
    return y;
}

struct ggml_tensor * ggml_vera_convolution(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                           struct ggml_tensor * x, struct ggml_tensor * w,
                                           struct ggml_tensor * segments, unsigned type) {
    return make(ctx, nodes, CONVOLUTION, nullptr, type, x->ne[0], x->ne[1], { x, w, segments });
}

struct ggml_tensor * ggml_vera_convolution_back(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                                struct ggml_tensor * dy, struct ggml_tensor * w,
                                                struct ggml_tensor * segments) {
    return make(ctx, nodes, CONVOLUTION_BACK, nullptr, F32, dy->ne[0], dy->ne[1], { dy, w, segments });
}

struct ggml_tensor * ggml_vera_convolution_cached(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                                  struct ggml_tensor * x, struct ggml_tensor * w,
                                                  struct ggml_tensor * state, struct ggml_tensor * rows,
                                                  unsigned type) {
    return make(ctx, nodes, CONVOLUTION_CACHED, nullptr, type, x->ne[0], x->ne[1], { x, w, state, rows });
}

static parameters with_delta(const struct ggml_vera_delta & d) {
    return { { d.keys, d.values, d.dim_k, d.dim_v }, { d.eps } };
}

struct ggml_tensor * ggml_vera_delta_net(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                         struct ggml_tensor * qkv, struct ggml_tensor * a, struct ggml_tensor * b,
                                         struct ggml_tensor * decay, struct ggml_tensor * bias,
                                         struct ggml_tensor * segments, struct ggml_vera_delta heads, unsigned type) {
    ggml_tensor * y        = make(ctx, nodes, DELTA_NET, nullptr, type, heads.dim_v * heads.values, qkv->ne[1],
                                  { qkv, a, b, decay, bias, segments });
    nodes->all.back().with = with_delta(heads);
    return y;
}

struct ggml_tensor * ggml_vera_delta_net_back(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                              struct ggml_tensor * dy, struct ggml_tensor * qkv, struct ggml_tensor * a,
                                              struct ggml_tensor * b, struct ggml_tensor * decay,
                                              struct ggml_tensor * bias, struct ggml_tensor * segments,
                                              struct ggml_vera_delta heads) {
    ggml_tensor * y        = make(ctx, nodes, DELTA_NET_BACK, nullptr, F32, qkv->ne[0] + 2 * heads.values, qkv->ne[1],
                                  { dy, qkv, a, b, decay, bias, segments });
    nodes->all.back().with = with_delta(heads);
    return y;
}

struct ggml_tensor * ggml_vera_delta_net_cached(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                                struct ggml_tensor * qkv, struct ggml_tensor * a,
                                                struct ggml_tensor * b, struct ggml_tensor * decay,
                                                struct ggml_tensor * bias, struct ggml_tensor * states,
                                                struct ggml_tensor * rows, struct ggml_vera_delta heads,
                                                unsigned type) {
    ggml_tensor * y        = make(ctx, nodes, DELTA_NET_CACHED, nullptr, type, heads.dim_v * heads.values, qkv->ne[1],
                                  { qkv, a, b, decay, bias, states, rows });
    nodes->all.back().with = with_delta(heads);
    return y;
}

struct ggml_tensor * ggml_vera_gated_norm(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                          struct ggml_tensor * x, struct ggml_tensor * z, struct ggml_tensor * w,
                                          float eps, unsigned type) {
    ggml_tensor * y        = make(ctx, nodes, GATED_NORM, nullptr, type, x->ne[0], x->ne[1], { x, z, w });
    nodes->all.back().with = { {}, { eps } };
    return y;
}

struct ggml_tensor * ggml_vera_gated_norm_back(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                               struct ggml_tensor * dy, struct ggml_tensor * x, struct ggml_tensor * z,
                                               struct ggml_tensor * w, float eps, unsigned type) {
    ggml_tensor * y        = make(ctx, nodes, GATED_NORM_BACK, nullptr, type, 2 * x->ne[0], x->ne[1], { dy, x, z, w });
    nodes->all.back().with = { {}, { eps } };
    return y;
}

const char * ggml_vera_name(const struct ggml_vera_nodes * nodes, const struct ggml_tensor * node) {
    if (nodes) {
        for (const struct node & x : nodes->all) {
            if (x.dst == node) {
                return operation_names[x.op];
            }
        }
    }
    return nullptr;
}

struct ggml_tensor * ggml_vera_peak(struct ggml_context * ctx, struct ggml_vera_nodes * nodes, struct ggml_tensor * x) {
    return make(ctx, nodes, PEAK, nullptr, F32, 1, 1, { x });
}

int ggml_vera_times(struct ggml_vera * v, const char ** names, double * seconds, int most) {
    int i = 0;
    for (; i < OPERATIONS && i < most; i++) {
        names[i]      = operation_names[i];
        seconds[i]    = v->seconds[i];
        v->seconds[i] = 0;
    }
    return i;
}
