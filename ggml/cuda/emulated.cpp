// The kernels for graphics processors as one more instruction set, "emulated".
#include "emulated.hpp"

#include "operations.hpp"

namespace vera {

template <int OP> static void run(const thread & t, ggml_tensor * dst) {
    // A device's rows are alike but for rounding, which tests of the CPU are not content with.
    const int  way   = t.with->linear.way;
    const bool alike = OP == GGML_VERA_LINEAR && way != GGML_VERA_PLAIN && way != GGML_VERA_INTEGERS &&
                       !getenv("VERATUNE_EMULATE_WAYS");
    if (alike || !cuda::supported((ggml_vera_operation) OP, *t.with, t.src)) {
        least().kernels[OP](t, dst);
    } else if (t.ith == 0) {
        cuda::machine m;
        cuda::compute(m, (ggml_vera_operation) OP, *t.with, t.src, dst);
    }
}

template <int... OP> static isa every(std::integer_sequence<int, OP...>) {
    return { "emulated", true, [](int64_t) { return ggml_vera_integers{}; }, { run<OP>... } };
}

const isa emulated = every(std::make_integer_sequence<int, GGML_VERA_OPERATION_COUNT>());

}  // namespace vera
