// Included before each file of the backend. ggml would have cuBLAS round float32 to TF32's 10 bits in every product; here float32 is float32.
#pragma once

#include <cublas_v2.h>

#define CUBLAS_TF32_TENSOR_OP_MATH CUBLAS_DEFAULT_MATH
