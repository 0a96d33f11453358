// In place of the kernels that the library is built without. The backend asks whether to use them, is told no, and
// multiplies with cuBLAS.
#include "fattn.cuh"
#include "mmf.cuh"
#include "mmq.cuh"

bool ggml_cuda_should_use_mmq(enum ggml_type, int, int64_t) { return false; }

bool ggml_cuda_should_use_mmf(enum ggml_type, int, int, const int64_t *, const size_t *, const int, bool) {
    return false;
}

bool ggml_cuda_flash_attn_ext_supported(int, const ggml_tensor *) { return false; }

void ggml_cuda_mul_mat_q(ggml_backend_cuda_context &, const ggml_tensor *, const ggml_tensor *, const ggml_tensor *,
                         ggml_tensor *) {
    GGML_ABORT("not built");
}

void ggml_cuda_op_mul_mat_q(ggml_backend_cuda_context &, const ggml_tensor *, const ggml_tensor *, ggml_tensor *,
                            const char *, const float *, const char *, float *, const int64_t, const int64_t,
                            const int64_t, const int64_t, cudaStream_t) {
    GGML_ABORT("not built");
}

void ggml_cuda_mul_mat_f(ggml_backend_cuda_context &, const ggml_tensor *, const ggml_tensor *, const ggml_tensor *,
                         ggml_tensor *) {
    GGML_ABORT("not built");
}

void ggml_cuda_flash_attn_ext(ggml_backend_cuda_context &, ggml_tensor *) { GGML_ABORT("not built"); }
