// All kernels, and the list of them that each instruction set's file makes by including this once (vectors.hpp).
#pragma once

#include "attention.hpp"
#include "cached.hpp"
#include "convolution.hpp"
#include "delta.hpp"
#include "experts.hpp"
#include "integers.hpp"
#include "linear.hpp"
#include "peak.hpp"
#include "rows.hpp"
#include "vera.hpp"

namespace vera {
namespace KERNELS {

// Calls a kernel with the parameters that the table names.
template <typename P> static inline void call(void (*kernel)(const thread &, const P &, ggml_tensor *),
                                              const thread & t, const P & with, ggml_tensor * dst) {
    kernel(t, with, dst);
}

static inline void call(void (*kernel)(const thread &, ggml_tensor *), const thread & t, const ggml_vera_none &,
                        ggml_tensor * dst) {
    kernel(t, dst);
}

}  // namespace KERNELS

#define QUOTE(x) #x
#define NAME(x)  QUOTE(x)
#define KERNEL(OP, shown, kernel, parameters) \
    [](const thread & t, ggml_tensor * dst) { KERNELS::call(KERNELS::kernel, t, t.with->parameters, dst); },

const isa ISA = { NAME(ISA), HAS_BF16, KERNELS::integers, { GGML_VERA_OPERATIONS(KERNEL) } };

}  // namespace vera
