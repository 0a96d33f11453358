// Compares capi.h with the headers of ggml and llama.cpp themselves. TestHeaderDrift compiles this file, with the
// constants of the Go code given as GO_…; nothing of it is ever linked or run.

#include "ggml.h"

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "gguf.h"
#include "llama.h"

// Functions: redeclared here; a declaration that differs is an error. Structs get a name of their own.
#define VT_STRUCT(name) vt_##name
#include "capi.h"

#define SAME(a, b) _Static_assert((a) == (b), #a " is not " #b)

// Structs: as large as the original, each field where the original has it and as large.
#define SIZE(s) SAME(sizeof(struct vt_##s), sizeof(struct s))
#define FIELD(s, f)                                          \
    SAME(offsetof(struct vt_##s, f), offsetof(struct s, f)); \
    SAME(sizeof(((struct vt_##s *) 0)->f), sizeof(((struct s *) 0)->f))

SIZE(ggml_init_params);
FIELD(ggml_init_params, mem_size);
FIELD(ggml_init_params, mem_buffer);
FIELD(ggml_init_params, no_alloc);

SIZE(ggml_tensor);
FIELD(ggml_tensor, type);
FIELD(ggml_tensor, buffer);
FIELD(ggml_tensor, ne);
FIELD(ggml_tensor, nb);
FIELD(ggml_tensor, op);
FIELD(ggml_tensor, op_params);
FIELD(ggml_tensor, flags);
FIELD(ggml_tensor, src);
FIELD(ggml_tensor, view_src);
FIELD(ggml_tensor, view_offs);
FIELD(ggml_tensor, data);
FIELD(ggml_tensor, name);
FIELD(ggml_tensor, extra);
FIELD(ggml_tensor, padding);

SIZE(ggml_type_traits);
FIELD(ggml_type_traits, type_name);
FIELD(ggml_type_traits, blck_size);
FIELD(ggml_type_traits, blck_size_interleave);
FIELD(ggml_type_traits, type_size);
FIELD(ggml_type_traits, is_quantized);
FIELD(ggml_type_traits, to_float);
FIELD(ggml_type_traits, from_float_ref);

SIZE(gguf_init_params);
FIELD(gguf_init_params, no_alloc);
FIELD(gguf_init_params, ctx);

SIZE(llama_model_params);
FIELD(llama_model_params, devices);
FIELD(llama_model_params, tensor_buft_overrides);
FIELD(llama_model_params, n_gpu_layers);
FIELD(llama_model_params, split_mode);
FIELD(llama_model_params, main_gpu);
FIELD(llama_model_params, tensor_split);
FIELD(llama_model_params, progress_callback);
FIELD(llama_model_params, progress_callback_user_data);
FIELD(llama_model_params, kv_overrides);
FIELD(llama_model_params, vocab_only);
FIELD(llama_model_params, use_mmap);
FIELD(llama_model_params, use_mlock);
FIELD(llama_model_params, check_tensors);
FIELD(llama_model_params, use_extra_bufts);
FIELD(llama_model_params, no_host);
FIELD(llama_model_params, no_alloc);

SIZE(ggml_threadpool_params);
FIELD(ggml_threadpool_params, cpumask);
FIELD(ggml_threadpool_params, n_threads);
FIELD(ggml_threadpool_params, prio);
FIELD(ggml_threadpool_params, poll);
FIELD(ggml_threadpool_params, strict_cpu);
FIELD(ggml_threadpool_params, paused);

SIZE(llama_context_params);
FIELD(llama_context_params, n_ctx);
FIELD(llama_context_params, n_batch);
FIELD(llama_context_params, n_ubatch);
FIELD(llama_context_params, n_seq_max);
FIELD(llama_context_params, n_threads);
FIELD(llama_context_params, n_threads_batch);
FIELD(llama_context_params, rope_scaling_type);
FIELD(llama_context_params, pooling_type);
FIELD(llama_context_params, attention_type);
FIELD(llama_context_params, flash_attn_type);
FIELD(llama_context_params, rope_freq_base);
FIELD(llama_context_params, rope_freq_scale);
FIELD(llama_context_params, yarn_ext_factor);
FIELD(llama_context_params, yarn_attn_factor);
FIELD(llama_context_params, yarn_beta_fast);
FIELD(llama_context_params, yarn_beta_slow);
FIELD(llama_context_params, yarn_orig_ctx);
FIELD(llama_context_params, defrag_thold);
FIELD(llama_context_params, cb_eval);
FIELD(llama_context_params, cb_eval_user_data);
FIELD(llama_context_params, type_k);
FIELD(llama_context_params, type_v);
FIELD(llama_context_params, abort_callback);
FIELD(llama_context_params, abort_callback_data);
FIELD(llama_context_params, embeddings);
FIELD(llama_context_params, offload_kqv);
FIELD(llama_context_params, no_perf);
FIELD(llama_context_params, op_offload);
FIELD(llama_context_params, swa_full);
FIELD(llama_context_params, kv_unified);

SIZE(llama_batch);
FIELD(llama_batch, n_tokens);
FIELD(llama_batch, token);
FIELD(llama_batch, embd);
FIELD(llama_batch, pos);
FIELD(llama_batch, n_seq_id);
FIELD(llama_batch, seq_id);
FIELD(llama_batch, logits);

// Constants.
SAME(VT_MAX_DIMS, GGML_MAX_DIMS);
SAME(VT_MAX_SRC, GGML_MAX_SRC);
SAME(VT_MAX_OP_PARAMS, GGML_MAX_OP_PARAMS);
SAME(VT_MAX_NAME, GGML_MAX_NAME);
SAME(VT_MAX_THREADS, GGML_MAX_N_THREADS);

SAME(GO_F32, GGML_TYPE_F32);
SAME(GO_F16, GGML_TYPE_F16);
SAME(GO_BF16, GGML_TYPE_BF16);
SAME(GO_I32, GGML_TYPE_I32);
SAME(GO_Q4_0, GGML_TYPE_Q4_0);
SAME(GO_Q4_1, GGML_TYPE_Q4_1);
SAME(GO_Q5_0, GGML_TYPE_Q5_0);
SAME(GO_Q5_1, GGML_TYPE_Q5_1);
SAME(GO_Q8_0, GGML_TYPE_Q8_0);
SAME(GO_Q2_K, GGML_TYPE_Q2_K);
SAME(GO_Q3_K, GGML_TYPE_Q3_K);
SAME(GO_Q4_K, GGML_TYPE_Q4_K);
SAME(GO_Q5_K, GGML_TYPE_Q5_K);
SAME(GO_Q6_K, GGML_TYPE_Q6_K);
SAME(GO_typeCount, GGML_TYPE_COUNT);

SAME(GO_ggufUint8, GGUF_TYPE_UINT8);
SAME(GO_ggufInt8, GGUF_TYPE_INT8);
SAME(GO_ggufUint16, GGUF_TYPE_UINT16);
SAME(GO_ggufInt16, GGUF_TYPE_INT16);
SAME(GO_ggufUint32, GGUF_TYPE_UINT32);
SAME(GO_ggufInt32, GGUF_TYPE_INT32);
SAME(GO_ggufFloat32, GGUF_TYPE_FLOAT32);
SAME(GO_ggufBool, GGUF_TYPE_BOOL);
SAME(GO_ggufString, GGUF_TYPE_STRING);
SAME(GO_ggufArray, GGUF_TYPE_ARRAY);
SAME(GO_ggufUint64, GGUF_TYPE_UINT64);
SAME(GO_ggufInt64, GGUF_TYPE_INT64);
SAME(GO_ggufFloat64, GGUF_TYPE_FLOAT64);

SAME(GO_alignment, GGUF_DEFAULT_ALIGNMENT);
SAME(3, GGUF_VERSION);            // checkHeader
SAME(4, GGML_LOG_LEVEL_ERROR);    // guard.cpp
SAME(0, GGML_STATUS_SUCCESS);     // Backend.Compute
SAME(0, GGML_ROPE_TYPE_NORMAL);   // Context.Rope
SAME(4, GGML_TENSOR_FLAG_PARAM);  // Context.OptStepAdamW
