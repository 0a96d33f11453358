#include "kernels.h"

#include <chrono>
#include <cstdlib>
#include <deque>
#include <thread>
#include <vector>

#if defined(_WIN32)
#include <malloc.h>
#endif

namespace vera {

static void * aligned(size_t size) {
#if defined(_WIN32)
    return _aligned_malloc(size, 64);
#else
    return aligned_alloc(64, size);
#endif
}

static void release(void * memory) {
#if defined(_WIN32)
    _aligned_free(memory);
#else
    free(memory);
#endif
}

// Memory that only grows. With the address sanitizer it has exactly the size asked for, every time anew, so that
// overruns and late uses are seen.
struct memory {
#if defined(__SANITIZE_ADDRESS__)
    enum { KEPT = 0, STEP = 64 };
#else
    enum { KEPT = 1, STEP = 4096 };
#endif
    void * start = nullptr;
    size_t size  = 0;

    void * get(size_t bytes) {
        if (bytes > size * KEPT) {
            release(start);
            size  = (bytes + STEP - 1) / STEP * STEP;
            start = aligned(size);
            if (!start) {
                abort();  // as ggml does when it gets no memory
            }
        }
        return start;
    }

    ~memory() { release(start); }
};

static const char * const operation_names[] = {
#define SHOWN(NAME, shown, kernel, parameters) shown,
    GGML_VERA_OPERATIONS(SHOWN)
#undef SHOWN
};

struct node : ggml_vera_call {
    ggml_vera *          vera;
    const ggml_tensor *  dst = nullptr;
    std::atomic<int64_t> next{ 0 };     // piece of work
    std::atomic<int>     waiting{ 0 };  // threads at the barrier
    std::atomic<int>     phase{ 0 };    // barriers that all threads have passed
    std::atomic<int>     left{ 0 };     // threads that are done

    node(ggml_vera * v, const ggml_vera_call & c) : ggml_vera_call(c), vera(v) {}
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

struct ggml_vera {
    std::vector<memory> scratch;
    memory              shared, parts;
    double              seconds[GGML_VERA_OPERATION_COUNT] = {};
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
    const int phase = node->phase.load();
    if (node->waiting.fetch_add(1) == nth - 1) {
        node->waiting = 0;
        node->next    = 0;
        node->phase   = phase + 1;
        return;
    }
    // A thread that has waited for long yields the processor.
    for (int spins = 0; node->phase.load() == phase; spins++) {
        if (spins < 1000) {
            pause();
        } else {
            std::this_thread::yield();
        }
    }
}

static void run(ggml_tensor * dst, int ith, int nth, void * userdata) {
    struct node * n     = static_cast<struct node *>((ggml_vera_call *) userdata);
    const auto    start = std::chrono::steady_clock::now();
    best().kernels[n->op]({ ith, nth, n, dst->src + n->into, &n->with }, dst);
    if (n->left.fetch_add(1) == nth - 1) {  // the last thread
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

struct ggml_vera_integers ggml_vera_isa_integers(int64_t k) { return best().integers(k); }

struct ggml_vera_nodes * ggml_vera_nodes_new(struct ggml_vera * v) {
    ggml_vera_nodes * n = new ggml_vera_nodes;
    n->vera             = v;
    return n;
}

void ggml_vera_nodes_free(struct ggml_vera_nodes * n) { delete n; }

struct ggml_tensor * ggml_vera_make(struct ggml_context * ctx, struct ggml_vera_nodes * nodes,
                                    enum ggml_vera_operation op, struct ggml_vera_parameters with,
                                    struct ggml_vera_result result, struct ggml_tensor ** sources, int n) {
    const ggml_vera_call call = { GGML_VERA_CALL_VERSION, op, result.into != nullptr, with };
    nodes->all.emplace_back(nodes->vera, call);
    ggml_vera_call * userdata = &nodes->all.back();
    ggml_tensor *    dst =
        result.into ? ggml_custom_inplace(ctx, result.into, sources, n, run, -1, userdata)
                    : ggml_custom_4d(ctx, result.type, result.ne0, result.ne1, 1, 1, sources, n, run, -1, userdata);
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
        case GGML_VERA_LINEAR:
        case GGML_VERA_LINEAR_BACK:
            see(n.matrix, all(src[0]));
            see(n.operand, all(src[1]));
            break;
        case GGML_VERA_LINEARS:
        case GGML_VERA_ADD_FACTORED: {
            const int count = x.op == GGML_VERA_LINEARS ? x.with.linears.n : x.with.factored.n;
            see(n.operand, all(src[0]) * (x.op == GGML_VERA_LINEARS ? 1 : count));
            for (int i = 0; i < count; i++) {
                see(n.matrix, all(src[3 + i]));
            }
            break;
        }
        case GGML_VERA_WEIGHT_GRADIENT: see(n.operand, all(src[0])); break;
        case GGML_VERA_EXPERTS:  // one expert, which all rows may have chosen
            see(n.matrix, all(src[0]));
            see(n.operand, src[1]->ne[0] * src[2]->ne[1]);
            break;
        case GGML_VERA_MERGE:
            see(n.matrix, all(src[0]));
            if (src[2]) {
                see(n.pair, all(src[2]));
            }
            break;
        case GGML_VERA_MERGED_GRADIENT:
        case GGML_VERA_FACTORED_GRADIENT: see(n.pair, all(src[2])); break;
        case GGML_VERA_DELTA_NET_BACK: {  // delta_back: states and ws of all spans
            enum { SPAN = 64, WIDEST = 16 };
            const auto    whole = [](int64_t x) { return (x + WIDEST - 1) / WIDEST * WIDEST; };
            const int64_t spans = (x.dst->ne[1] + SPAN - 1) / SPAN + src[6]->ne[1];
            const auto &  heads = x.with.delta_net;
            see(n.states,
                spans * (heads.values / heads.keys) * (whole(heads.dim_k) + SPAN) * (whole(heads.dim_v) + WIDEST));
            break;
        }
        default: break;
        }
    }
    return n;
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

int ggml_vera_times(struct ggml_vera * v, const char ** names, double * seconds, int most) {
    int i = 0;
    for (; i < GGML_VERA_OPERATION_COUNT && i < most; i++) {
        names[i]      = operation_names[i];
        seconds[i]    = v->seconds[i];
        v->seconds[i] = 0;
    }
    return i;
}
