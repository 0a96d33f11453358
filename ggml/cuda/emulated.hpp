// What kernels.hpp needs of CUDA, on the CPU: the threads of a block are fibers that run in turn from barrier to
// barrier. This tests the kernels where there is no graphics processor. It is slow.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <functional>
#include <memory>
#include <type_traits>
#include <vector>

#include "../kernels.h"

#define __global__
#define __device__
#define __host__
#define __shared__                 static
#define DYNAMIC_SHARED(type, name) type * name = (type *) vera::cuda::current.shared

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

struct alignas(16) float4 {
    float x, y, z, w;
};

struct alignas(8) uint2 {
    uint32_t x, y;
};

static dim3 gridDim, blockIdx, threadIdx;

template <typename T> static T min(T a, T b) { return a < b ? a : b; }

template <typename T> static T max(T a, T b) { return a < b ? b : a; }

namespace vera {
namespace cuda {

// The threads of the block that is being computed.
struct block {
    // not a power of two: the stacks of the threads would fall into the same sets of the cache
    enum { STACK = (64 << 10) + 1088 };
    struct fiber {
        ucontext_t start;
        jmp_buf    at;
        bool       begun, done;
    };
    std::vector<fiber>    threads;
    std::vector<char>     stacks;
    std::vector<float>    exchanged;
    std::function<void()> body;
    ucontext_t            begin;
    jmp_buf               outside;
    unsigned              at     = 0;
    void *                shared = nullptr;

    static void enter();

    // Runs every thread up to its next barrier, again and again until all are done. Only the first switch to a thread
    // needs a system call.
    void run(unsigned count) {
        threads.resize(count);
        stacks.resize(count * STACK);
        exchanged.resize(count);
        for (unsigned i = 0; i < count; i++) {
            fiber & f = threads[i];
            f.begun = f.done = false;
            getcontext(&f.start);
            f.start.uc_stack.ss_sp   = stacks.data() + i * STACK;
            f.start.uc_stack.ss_size = STACK;
            makecontext(&f.start, enter, 0);
        }
        unsigned left = count;
        while (left > 0) {
            for (at = 0; at < count; at++) {
                fiber & f = threads[at];
                if (f.done) {
                    continue;
                }
                threadIdx.x = at;
                if (!_setjmp(outside)) {
                    if (f.begun) {
                        _longjmp(f.at, 1);
                    }
                    f.begun = true;
                    swapcontext(&begin, &f.start);
                }
                left -= f.done;
            }
        }
    }

    void barrier() {
        if (!_setjmp(threads[at].at)) {
            _longjmp(outside, 1);
        }
    }
};

static block current;

inline void block::enter() {
    current.body();
    current.threads[current.at].done = true;
    _longjmp(current.outside, 1);
}

}  // namespace cuda
}  // namespace vera

static void __syncthreads() { vera::cuda::current.barrier(); }

static void __syncwarp() { vera::cuda::current.barrier(); }

static float __shfl_xor_sync(unsigned, float v, int k) {
    vera::cuda::block & b    = vera::cuda::current;
    b.exchanged[threadIdx.x] = v;
    b.barrier();
    v = b.exchanged[threadIdx.x ^ (unsigned) k];
    b.barrier();
    return v;
}

static float from_half(uint32_t h) {
    enum { F16 = 1 };
    const uint16_t bits = (uint16_t) h;
    float          x;
    ggml_get_type_traits(F16)->to_float(&bits, &x, 1);
    return x;
}

static uint16_t to_half(float x) { return ggml_fp32_to_fp16(x); }

#include "kernels.hpp"

namespace vera {
namespace cuda {

struct machine {
    std::vector<std::unique_ptr<char[]>> memory;

    void * scratch(size_t bytes) {
        memory.emplace_back(new char[bytes + 64]);
        return (void *) (((uintptr_t) memory.back().get() + 63) / 64 * 64);
    }

    void floats(unsigned type, const void * from, float * to, int64_t n) {
        ggml_get_type_traits(type)->to_float(from, to, n);
    }

    bool halves(unsigned, const void *, void *, int64_t) { return false; }

    template <typename... Args> bool few(Args...) { return false; }

    bool bytes(const ggml_tensor * w, matrix x, int64_t n, matrix y) {
        enum { BLOCK = 32 };
        const int64_t      k = w->ne[0];
        std::vector<float> rounded((size_t) (n * k)), row((size_t) k);
        for (int64_t i = 0; i < n * k; i += BLOCK) {
            float most = 0;
            for (int64_t j = i; j < i + BLOCK; j++) {
                most = fmaxf(most, fabsf(x.get(j / k, j % k)));
            }
            for (int64_t j = i; j < i + BLOCK; j++) {
                rounded[j] = most == 0 ? 0 : roundf(x.get(j / k, j % k) * (127 / most)) * (most / 127);
            }
        }
        for (int64_t r = 0; r < w->ne[1]; r++) {
            floats(w->type, (const char *) w->data + r * w->nb[1], row.data(), k);
            for (int64_t c = 0; c < n; c++) {
                float sum = 0;
                for (int64_t i = 0; i < k; i++) {
                    sum += row[i] * rounded[c * k + i];
                }
                y.put(c, r, sum);
            }
        }
        return true;
    }

    void gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, matrix a, matrix b, float beta, matrix c) {
        std::vector<float> left((size_t) (m * k));  // m rows of k elements
        for (int64_t i = 0; i < m; i++) {
            for (int64_t l = 0; l < k; l++) {
                left[i * k + l] = ta ? a.get(i, l) : a.get(l, i);
            }
        }
        std::vector<float> right((size_t) k);
        for (int64_t j = 0; j < n; j++) {
            for (int64_t l = 0; l < k; l++) {
                right[l] = tb ? b.get(l, j) : b.get(j, l);
            }
            for (int64_t i = 0; i < m; i++) {
                float   sums[8] = {};
                int64_t l       = 0;
                for (; l + 8 <= k; l += 8) {
                    for (int o = 0; o < 8; o++) {
                        sums[o] += left[i * k + l + o] * right[l + o];
                    }
                }
                float s = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
                for (; l < k; l++) {
                    s += left[i * k + l] * right[l];
                }
                c.put(j, i, beta != 0 ? s + beta * c.get(j, i) : s);
            }
        }
    }

    void launch(dim3 grid, unsigned threads, size_t shared, std::function<void()> body) {
        const std::vector<float> room(shared / sizeof(float) + 4, NAN);
        current.shared = (void *) (((uintptr_t) room.data() + 15) / 16 * 16);
        current.body   = body;
        gridDim        = grid;
        for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++) {
            for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++) {
                current.run(threads);
            }
        }
    }
};

}  // namespace cuda
}  // namespace vera

#define LAUNCH(machine, kernel, grid, threads, shared, ...) \
    (machine).launch(grid, threads, shared, [&] { kernel(__VA_ARGS__); })
