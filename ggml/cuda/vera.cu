// ggml's CUDA backend with veratune's operations in it: it computes the nodes of ours in a graph itself, and has ggml
// compute those between them. ggml looks for the functions at the end of this file.
#include <cublas_v2.h>

#include <algorithm>
#include <list>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common.cuh"
#include "convert.cuh"
#include "dequantize.cuh"
#include "ggml-backend-impl.h"
#include "ggml-cuda.h"
#include "ggml-impl.h"
#include "mmvq.cuh"

#define DYNAMIC_SHARED(type, name)             \
    extern __shared__ float4 dynamic_shared[]; \
    type *                   name = (type *) dynamic_shared

#include "../call.h"

__device__ static float from_half(uint32_t h) { return __half2float(__ushort_as_half((unsigned short) h)); }

__device__ static uint16_t to_half(float x) { return __half_as_ushort(__float2half_rn(x)); }

namespace vera {
namespace cuda {

// Turns errors of CUDA into exceptions with a message. They leave ggml's functions as its own aborts do.
static void check(cudaError_t e, const char * what) {
    if (e != cudaSuccess) {
        throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(e));
    }
}

static void check(cublasStatus_t s, const char * what) {
    if (s != CUBLAS_STATUS_SUCCESS) {
        throw std::runtime_error(std::string(what) + ": " + cublasGetStatusString(s));
    }
}

// ggml's functions unpack two values of a block. The second one is APART columns behind the first: half a block, or
// one.
template <int block, int per_byte> struct layout {
    enum { APART = per_byte == 1 ? 1 : block / 2 };
};

// Dequantises to bfloat16. A thread unpacks two neighbours of each half of a block, or four neighbours.
template <int block, int per_byte, dequantize_kernel_t unpack> __global__ static void halve(const void *   from,
                                                                                            nv_bfloat162 * to,
                                                                                            int64_t        n) {
    const int64_t i = 4 * (blockDim.x * (int64_t) blockIdx.x + threadIdx.x);
    if (i >= n) {
        return;
    }
    const int     within = i % block, q = within / per_byte;
    const int64_t first = i - within;
    float2        a, b;
    if (per_byte == 1) {
        unpack(from, i / block, q, a);
        unpack(from, i / block, q + 2, b);
        to[i / 2]     = __floats2bfloat162_rn(a.x, a.y);
        to[i / 2 + 1] = __floats2bfloat162_rn(b.x, b.y);
    } else {
        unpack(from, i / block, q, a);
        unpack(from, i / block, q + 1, b);
        to[(first + q) / 2]             = __floats2bfloat162_rn(a.x, b.x);
        to[(first + q + block / 2) / 2] = __floats2bfloat162_rn(a.y, b.y);
    }
}

struct matrix;

// Graphs of CUDA, each recorded from a graph that was computed again as it was, such as that of an answer's next token:
// starting one takes the processor less than starting its kernels one by one. Only with VERATUNE_CUDA_GRAPHS=1, as it
// has not been run yet.
struct recordings {
    struct recording {
        uint64_t        key, released;
        cudaGraphExec_t exec;  // NULL where it was computed once
    };
    enum { MOST = 8 };
    std::list<recording> all;  // the newest first

    static bool wanted() {
        static const char * const set = getenv("VERATUNE_CUDA_GRAPHS");
        return set && strcmp(set, "1") == 0;
    }

    void drop(std::list<recording>::iterator i) {
        if (i->exec) {
            (void) cudaGraphExecDestroy(i->exec);
        }
        all.erase(i);
    }

    // The recording of that key, or NULL, which is put down as computed once. What was recorded with memory that has
    // been given back since is forgotten.
    recording * of(uint64_t key, uint64_t released) {
        for (auto i = all.begin(); i != all.end(); i++) {
            if (i->key == key) {
                if (i->released != released) {
                    drop(i);
                    break;
                }
                all.splice(all.begin(), all, i);
                return &all.front();
            }
        }
        all.push_front({ key, released, nullptr });
        if (all.size() > MOST) {
            drop(std::prev(all.end()));
        }
        return nullptr;
    }

    void clear() {
        while (!all.empty()) {
            drop(all.begin());
        }
    }
};

struct machine {
    ggml_backend_cuda_context * context = nullptr;
    cudaStream_t                stream  = nullptr;
    cublasHandle_t              cublas  = nullptr;

    // Memory for the node that is being computed. If that took several parts, the next node gets one part of their
    // size.
    struct part {
        char * at;
        size_t size, used;
    };
    std::vector<part> parts;
    uint64_t          released = 0;  // how often memory has been given back

    recordings recorded;

    void begin(ggml_backend_cuda_context * c) {
        context = c;
        stream  = c->stream();
        if (!cublas) {
            check(cublasCreate(&cublas), "cuBLAS");
            check(cublasSetMathMode(cublas, CUBLAS_DEFAULT_MATH), "cuBLAS");
        }
        check(cublasSetStream(cublas, stream), "cuBLAS");
    }

    void next() {
        if (parts.size() > 1) {
            size_t all = 0;
            for (const part & p : parts) {
                all += p.size;
            }
            release();
            more(all);
        }
        if (!parts.empty()) {
            parts.back().used = 0;
        }
    }

    void more(size_t bytes) {
        part p = { nullptr, bytes, 0 };
        if (cudaMalloc((void **) &p.at, bytes) != cudaSuccess) {
            (void) cudaGetLastError();
            throw std::bad_alloc();
        }
        parts.push_back(p);
    }

    void release() {
        check(cudaStreamSynchronize(stream), "waiting");
        for (const part & p : parts) {
            check(cudaFree(p.at), "freeing memory");
        }
        parts.clear();
        released++;
    }

    void * scratch(size_t bytes) {
        bytes = (bytes + 255) / 256 * 256;
        if (parts.empty() || parts.back().used + bytes > parts.back().size) {
            more(std::max(bytes, (size_t) 32 << 20));
        }
        part & p = parts.back();
        p.used += bytes;
        return p.at + p.used - bytes;
    }

    void gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const matrix & a, const matrix & b, float beta,
              const matrix & c);

    void floats(unsigned type, const void * from, float * to, int64_t n) {
        const to_fp32_cuda_t f = ggml_get_to_fp32_cuda((ggml_type) type);
        if (!f) {
            throw std::runtime_error(std::string("no kernel turns ") + ggml_type_name((ggml_type) type) +
                                     " into float32");
        }
        f(from, to, n, stream);
        check(cudaGetLastError(), "dequantising");
    }

    template <int block, int per_byte, dequantize_kernel_t unpack> bool halved(const void * from, void * to,
                                                                               int64_t n) {
        halve<block, per_byte, unpack>
            <<<(unsigned) ((n / 4 + 255) / 256), 256, 0, stream>>>(from, (nv_bfloat162 *) to, n);
        check(cudaGetLastError(), "dequantising");
        return true;
    }

    bool halves(unsigned type, const void * from, void * to, int64_t n) {
        switch (type) {
        case GGML_TYPE_Q4_0: return halved<QK4_0, QR4_0, dequantize_q4_0>(from, to, n);
        case GGML_TYPE_Q4_1: return halved<QK4_1, QR4_1, dequantize_q4_1>(from, to, n);
        case GGML_TYPE_Q5_0: return halved<QK5_0, QR5_0, dequantize_q5_0>(from, to, n);
        case GGML_TYPE_Q5_1: return halved<QK5_1, QR5_1, dequantize_q5_1>(from, to, n);
        case GGML_TYPE_Q8_0: return halved<QK8_0, QR8_0, dequantize_q8_0>(from, to, n);
        default: return false;
        }
    }

    bool few(unsigned type, dim3 grid, const char * w, int64_t row, int64_t out, int64_t k, const matrix & x, int n,
             const float * by_row, const float * by_column, const matrix & acc, const matrix & y);

    bool bytes(const ggml_tensor * w, const matrix & x, int64_t n, const matrix & y);

    template <typename K, typename... Args> void launch(K kernel, dim3 grid, unsigned threads, size_t shared,
                                                        Args... args) {
        if (shared > 48 << 10) {
            check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int) shared),
                  "shared memory");
        }
        kernel<<<grid, threads, shared, stream>>>(args...);
        check(cudaGetLastError(), "a kernel");
    }
};

}  // namespace cuda
}  // namespace vera

#define LAUNCH(machine, kernel, grid, threads, shared, ...) (machine).launch(kernel, grid, threads, shared, __VA_ARGS__)

#include "operations.hpp"

namespace vera {
namespace cuda {

void machine::gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const matrix & a, const matrix & b, float beta,
                   const matrix & c) {
    const float one  = 1;
    const auto  type = [](const matrix & x) { return x.half ? CUDA_R_16BF : CUDA_R_32F; };
    check(cublasGemmEx(cublas, ta ? CUBLAS_OP_T : CUBLAS_OP_N, tb ? CUBLAS_OP_T : CUBLAS_OP_N, (int) m, (int) n,
                       (int) k, &one, a.data, type(a), (int) a.stride, b.data, type(b), (int) b.stride, &beta, c.data,
                       type(c), (int) c.stride, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
          "cuBLAS");
}

template <int block, int per_byte, dequantize_kernel_t unpack>
__global__ static void few_quantised(const char * w, int64_t row, int64_t out, int64_t k, matrix x, int n,
                                     const float * by_row, const float * by_column, matrix acc, matrix y) {
    few_columns(
        [&](int64_t r, int64_t i, int64_t at[2], float v[2]) {
            const int within = 2 * i % block, q = within / per_byte;
            float2    pair;
            unpack(w + r * row, 2 * i / block, q, pair);
            at[0] = 2 * i - within + q;
            at[1] = at[0] + layout<block, per_byte>::APART;
            v[0]  = pair.x;
            v[1]  = pair.y;
        },
        out, k, x, n, by_row, by_column, acc, y);
}

__global__ static void few_f16(const char * w, int64_t row, int64_t out, int64_t k, matrix x, int n,
                               const float * by_row, const float * by_column, matrix acc, matrix y) {
    few_columns(
        [&](int64_t r, int64_t i, int64_t at[2], float v[2]) {
            const float2 pair = __half22float2(((const half2 *) (w + r * row))[i]);
            at[0]             = 2 * i;
            at[1]             = 2 * i + 1;
            v[0]              = pair.x;
            v[1]              = pair.y;
        },
        out, k, x, n, by_row, by_column, acc, y);
}

bool machine::few(unsigned type, dim3 grid, const char * w, int64_t row, int64_t out, int64_t k, const matrix & x,
                  int n, const float * by_row, const float * by_column, const matrix & acc, const matrix & y) {
    const auto with = [&](auto kernel) {
        launch(kernel, grid, THREADS, 0, w, row, out, k, x, n, by_row, by_column, acc, y);
        return true;
    };
    switch (type) {
    case GGML_TYPE_F16: return with(few_f16);
    case GGML_TYPE_Q4_0: return with(few_quantised<QK4_0, QR4_0, dequantize_q4_0>);
    case GGML_TYPE_Q4_1: return with(few_quantised<QK4_1, QR4_1, dequantize_q4_1>);
    case GGML_TYPE_Q5_0: return with(few_quantised<QK5_0, QR5_0, dequantize_q5_0>);
    case GGML_TYPE_Q5_1: return with(few_quantised<QK5_1, QR5_1, dequantize_q5_1>);
    case GGML_TYPE_Q8_0: return with(few_quantised<QK8_0, QR8_0, dequantize_q8_0>);
    default: return false;
    }
}

// A float32 matrix as ggml's functions take it.
static ggml_tensor described(const matrix & x, int64_t n, int64_t rows) {
    ggml_tensor t = {};
    t.type        = GGML_TYPE_F32;
    t.data        = x.data;
    t.ne[0]       = n;
    t.ne[1]       = rows;
    t.ne[2] = t.ne[3] = 1;
    t.nb[0]           = sizeof(float);
    t.nb[1]           = x.stride * sizeof(float);
    t.nb[2] = t.nb[3] = t.nb[1] * rows;
    return t;
}

// Whether ggml's mmvq.cu has a product with 8-bit activations.
static bool has_vec_dot(ggml_type type) {
    switch (type) {
    case GGML_TYPE_Q4_0:
    case GGML_TYPE_Q4_1:
    case GGML_TYPE_Q5_0:
    case GGML_TYPE_Q5_1:
    case GGML_TYPE_Q8_0:
    case GGML_TYPE_MXFP4:
    case GGML_TYPE_Q2_K:
    case GGML_TYPE_Q3_K:
    case GGML_TYPE_Q4_K:
    case GGML_TYPE_Q5_K:
    case GGML_TYPE_Q6_K:
    case GGML_TYPE_IQ4_NL:
    case GGML_TYPE_IQ4_XS: return true;
    default: return false;
    }
}

// By ggml's own kernels, which read W once.
bool machine::bytes(const ggml_tensor * w, const matrix & x, int64_t n, const matrix & y) {
    static_assert(BYTES_AT_ONCE <= MMVQ_MAX_BATCH_SIZE, "ggml's kernels take fewer columns");
    if (!has_vec_dot(w->type)) {
        return false;
    }
    const ggml_tensor in     = described(x, w->ne[0], n);
    ggml_tensor       out    = described(y, w->ne[1], n);
    ggml_tensor       weight = *w;
    weight.buffer            = w->view_src ? w->view_src->buffer : w->buffer;
    ggml_cuda_mul_mat_vec_q(*context, &weight, &in, nullptr, &out);
    check(cudaGetLastError(), "a product with 8-bit activations");
    return true;
}

// The call of a node of ours, or NULL.
static const ggml_vera_call * called(const ggml_tensor * t) {
    if (t->op != GGML_OP_CUSTOM) {
        return nullptr;
    }
    ggml_custom_op_params p;
    memcpy(&p, t->op_params, sizeof(p));
    const ggml_vera_call * c = (const ggml_vera_call *) p.userdata;
    return c && c->version == GGML_VERA_CALL_VERSION ? c : nullptr;
}

// ggml's backend has no get_rows of K-quants. Here the rows' bytes are copied side by side, and dequantised there.
static bool gathers(const ggml_tensor * t) {
    return t->op == GGML_OP_GET_ROWS && t->src[0]->type != GGML_TYPE_F32 && t->src[0]->ne[2] == 1 &&
           t->src[0]->ne[3] == 1 && ggml_is_contiguous(t->src[0]) && ggml_is_contiguous(t) &&
           ggml_is_vector(t->src[1]) && ggml_get_to_fp32_cuda(t->src[0]->type);
}

static void gathered(machine & m, const ggml_tensor * w, const ggml_tensor * rows, ggml_tensor * dst) {
    const int64_t n = w->ne[0], bytes = (int64_t) w->nb[1];
    char *        side = (char *) m.scratch((size_t) (bytes * rows->ne[0]));
    LAUNCH(m, gather, dim3((unsigned) rows->ne[0]), THREADS, 0, (const char *) w->data, bytes,
           (const int32_t *) rows->data, side, bytes);
    m.floats(w->type, side, (float *) dst->data, n * rows->ne[0]);
}

// The functions of ggml's backend that are replaced.
static struct {
    ggml_backend_t (*init)(ggml_backend_dev_t, const char *);
    void (*free)(ggml_backend_t);
    bool (*supports)(ggml_backend_dev_t, const ggml_tensor *);
    ggml_status (*compute)(ggml_backend_t, ggml_cgraph *, int);
} stock;

// The machine of each backend, in a list, since references to one stay valid while others come and go.
static std::list<std::pair<ggml_backend_t, machine>> machines;
static std::mutex                                    machines_mutex;

static machine & machine_of(ggml_backend_t backend) {
    std::lock_guard<std::mutex> lock(machines_mutex);
    for (auto & m : machines) {
        if (m.first == backend) {
            return m.second;
        }
    }
    machines.emplace_back(backend, machine());
    return machines.back().second;
}

static bool supports(ggml_backend_dev_t device, const ggml_tensor * t) {
    if (t->op == GGML_OP_CUSTOM) {
        const ggml_vera_call * c = called(t);
        const bool             dequantises =
            c && (c->op == GGML_VERA_LINEAR || c->op == GGML_VERA_LINEAR_BACK || c->op == GGML_VERA_MERGE);
        return c && supported(c->op, c->with, t->src + c->into) &&
               (!dequantises || ggml_get_to_fp32_cuda(t->src[c->into]->type) || t->src[c->into]->type == GGML_TYPE_F32);
    }
    return gathers(t) || stock.supports(device, t);
}

static ggml_status compute_nodes(machine & m, ggml_backend_t backend, ggml_cgraph * graph, int batch) {
    for (int i = 0, next; i < graph->n_nodes; i = next) {
        next            = i + 1;
        ggml_tensor * t = graph->nodes[i];
        m.next();
        if (const ggml_vera_call * c = called(t)) {
            compute(m, c->op, c->with, t->src + c->into, t);
            continue;
        }
        if (gathers(t)) {
            gathered(m, t->src[0], t->src[1], t);
            continue;
        }
        while (next < graph->n_nodes && !called(graph->nodes[next]) && !gathers(graph->nodes[next])) {
            next++;
        }
        ggml_cgraph       part   = ggml_graph_view(graph, i, next);
        const ggml_status status = stock.compute(backend, &part, batch);
        if (status != GGML_STATUS_SUCCESS) {
            return status;
        }
    }
    return GGML_STATUS_SUCCESS;
}

// A number for all that a graph computes, and where. (FNV-1a)
static uint64_t key_of(const ggml_cgraph * graph) {
    uint64_t   key = 14695981039346656037u;
    const auto add = [&](const void * data, size_t bytes) {
        for (size_t i = 0; i < bytes; i++) {
            key = (key ^ ((const uint8_t *) data)[i]) * 1099511628211u;
        }
    };
    const auto add_tensor = [&](const ggml_tensor * t) {
        add(&t->type, sizeof(t->type));
        add(&t->data, sizeof(t->data));
        add(t->ne, sizeof(t->ne));
        add(t->nb, sizeof(t->nb));
    };
    for (int i = 0; i < graph->n_nodes; i++) {
        const ggml_tensor * t = graph->nodes[i];
        add(&t->op, sizeof(t->op));
        add_tensor(t);
        for (const ggml_tensor * s : t->src) {
            if (s) {
                add_tensor(s);
            }
        }
        if (const ggml_vera_call * c = called(t)) {
            add(&c->op, sizeof(c->op));
            add(&c->into, sizeof(c->into));
            add(&c->with, sizeof(c->with));
        } else {
            add(t->op_params, sizeof(t->op_params));
        }
    }
    return key;
}

// The first time, a graph is computed, which also gets all memory that it needs; the second time it is recorded.
static ggml_status compute_recorded(machine & m, ggml_backend_t backend, ggml_cgraph * graph, int batch) {
    recordings::recording * r = m.recorded.of(key_of(graph), m.released);
    if (!r) {
        const ggml_status status = compute_nodes(m, backend, graph, batch);
        m.next();  // joins the parts of memory
        if (!m.recorded.all.empty()) {
            m.recorded.all.front().released = m.released;
        }
        return status;
    }
    if (!r->exec) {
        cudaGraph_t recorded;
        check(cudaStreamBeginCapture(m.stream, cudaStreamCaptureModeRelaxed), "recording");
        ggml_status status;
        try {
            status = compute_nodes(m, backend, graph, batch);
        } catch (...) {
            (void) cudaStreamEndCapture(m.stream, &recorded);
            m.recorded.clear();
            throw;
        }
        check(cudaStreamEndCapture(m.stream, &recorded), "recording");
        const cudaError_t made = cudaGraphInstantiate(&r->exec, recorded, 0);
        (void) cudaGraphDestroy(recorded);
        check(made, "a recorded graph");
        if (status != GGML_STATUS_SUCCESS) {
            return status;
        }
    }
    check(cudaGraphLaunch(r->exec, m.stream), "a recorded graph");
    return GGML_STATUS_SUCCESS;
}

static ggml_status compute_graph(ggml_backend_t backend, ggml_cgraph * graph, int batch) {
    ggml_backend_cuda_context * context = (ggml_backend_cuda_context *) backend->context;
    ggml_cuda_set_device(context->device);
    machine & m = machine_of(backend);
    m.begin(context);
    return recordings::wanted() ? compute_recorded(m, backend, graph, batch) : compute_nodes(m, backend, graph, batch);
}

static void free_backend(ggml_backend_t backend) {
    std::lock_guard<std::mutex> lock(machines_mutex);
    for (auto i = machines.begin(); i != machines.end(); i++) {
        if (i->first == backend) {
            machine & m = i->second;
            m.recorded.clear();
            if (m.cublas) {
                for (const machine::part & p : m.parts) {
                    (void) cudaFree(p.at);
                }
                (void) cublasDestroy(m.cublas);
            }
            machines.erase(i);
            break;
        }
    }
    stock.free(backend);
}

static ggml_backend_t init(ggml_backend_dev_t device, const char * parameters) {
    ggml_backend_t backend = stock.init(device, parameters);
    if (backend) {
        stock.free                   = backend->iface.free;
        stock.compute                = backend->iface.graph_compute;
        backend->iface.free          = free_backend;
        backend->iface.graph_compute = compute_graph;
    }
    return backend;
}

}  // namespace cuda
}  // namespace vera

extern "C" {

GGML_BACKEND_API ggml_backend_reg_t ggml_backend_init(void) {
    ggml_backend_reg_t reg = ggml_backend_cuda_reg();
    for (size_t i = 0; reg && i < ggml_backend_reg_dev_count(reg); i++) {
        ggml_backend_dev_t device  = ggml_backend_reg_dev_get(reg, i);
        vera::cuda::stock.init     = device->iface.init_backend;
        vera::cuda::stock.supports = device->iface.supports_op;
        device->iface.init_backend = vera::cuda::init;
        device->iface.supports_op  = vera::cuda::supports;
    }
    return reg;
}
}
