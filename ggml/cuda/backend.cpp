// What ggml_backend_load looks for in the library.
#define GGML_BACKEND_DL
#include "ggml-backend-impl.h"
#include "ggml-cuda.h"

GGML_BACKEND_DL_IMPL(ggml_backend_cuda_reg)
