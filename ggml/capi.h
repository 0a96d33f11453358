// The part of the C API of ggml, gguf and llama.cpp that this package calls.
//
// Module archives give no stable include path, so a plain `go build` could not find the originals; these declarations
// stand in for them. TestHeaderDrift compiles this file against the pinned module's own headers: functions are
// redeclared there (a different signature is a compile error), structs and constants are compared one by one in
// testdata/drift.c. Enumerations are spelt by their compatible integer type, as C allows.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

// testdata/drift.c defines VT_STRUCT to give the structs a name of their own beside the originals.
#ifndef VT_STRUCT
#define VT_STRUCT(name) name
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum {
    VT_MAX_DIMS      = 4,
    VT_MAX_SRC       = 10,
    VT_MAX_OP_PARAMS = 64,
    VT_MAX_NAME      = 64,
    VT_MAX_THREADS   = 512,
};

struct ggml_context;
struct ggml_cgraph;
struct ggml_backend;
struct ggml_backend_device;
struct ggml_backend_reg;
struct ggml_backend_buffer;
struct ggml_backend_buffer_type;
struct ggml_gallocr;
struct ggml_threadpool;
struct gguf_context;
struct llama_model;
struct llama_vocab;
struct llama_context;
struct llama_adapter_lora;
struct llama_memory_i;
struct ggml_tensor;

struct VT_STRUCT(ggml_init_params) {
    size_t mem_size;
    void * mem_buffer;
    bool   no_alloc;
};

struct VT_STRUCT(ggml_tensor) {
    unsigned                     type;
    struct ggml_backend_buffer * buffer;
    int64_t                      ne[VT_MAX_DIMS];
    size_t                       nb[VT_MAX_DIMS];
    unsigned                     op;
    int32_t                      op_params[VT_MAX_OP_PARAMS / sizeof(int32_t)];
    int32_t                      flags;
    struct ggml_tensor *         src[VT_MAX_SRC];
    struct ggml_tensor *         view_src;
    size_t                       view_offs;
#ifdef __cplusplus
    void * data;
#else
    uintptr_t data;  // a device's address can be any number, which Go would take for a pointer of its own
#endif
    char   name[VT_MAX_NAME];
    void * extra;
    char   padding[8];
};

struct VT_STRUCT(ggml_type_traits) {
    const char * type_name;
    int64_t      blck_size;
    int64_t      blck_size_interleave;
    size_t       type_size;
    bool         is_quantized;
    void (*to_float)(const void * x, float * y, int64_t k);
    void (*from_float_ref)(const float * x, void * y, int64_t k);
};

struct VT_STRUCT(gguf_init_params) {
    bool                   no_alloc;
    struct ggml_context ** ctx;
};

struct VT_STRUCT(ggml_threadpool_params) {
    bool     cpumask[VT_MAX_THREADS];
    int      n_threads;
    int      prio;
    uint32_t poll;
    bool     strict_cpu;
    bool     paused;
};

struct VT_STRUCT(llama_model_params) {
    void *        devices;
    const void *  tensor_buft_overrides;
    int32_t       n_gpu_layers;
    unsigned      split_mode;
    int32_t       main_gpu;
    const float * tensor_split;
    bool (*progress_callback)(float progress, void * user_data);
    void *       progress_callback_user_data;
    const void * kv_overrides;
    bool         vocab_only;
    bool         use_mmap;
    bool         use_mlock;
    bool         check_tensors;
    bool         use_extra_bufts;
    bool         no_host;
    bool         no_alloc;
};

struct VT_STRUCT(llama_context_params) {
    uint32_t     n_ctx;
    uint32_t     n_batch;
    uint32_t     n_ubatch;
    uint32_t     n_seq_max;
    int32_t      n_threads;
    int32_t      n_threads_batch;
    int          rope_scaling_type;
    int          pooling_type;
    int          attention_type;
    int          flash_attn_type;
    float        rope_freq_base;
    float        rope_freq_scale;
    float        yarn_ext_factor;
    float        yarn_attn_factor;
    float        yarn_beta_fast;
    float        yarn_beta_slow;
    uint32_t     yarn_orig_ctx;
    float        defrag_thold;
    const void * cb_eval;
    void *       cb_eval_user_data;
    unsigned     type_k;
    unsigned     type_v;
    const void * abort_callback;
    void *       abort_callback_data;
    bool         embeddings;
    bool         offload_kqv;
    bool         no_perf;
    bool         op_offload;
    bool         swa_full;
    bool         kv_unified;
};

struct VT_STRUCT(llama_batch) {
    int32_t    n_tokens;
    int32_t *  token;
    float *    embd;
    int32_t *  pos;
    int32_t *  n_seq_id;
    int32_t ** seq_id;
    int8_t *   logits;
};

// ggml: contexts, tensors, types

struct ggml_context * ggml_init(struct ggml_init_params params);
void                  ggml_free(struct ggml_context * ctx);
size_t                ggml_tensor_overhead(void);
struct ggml_tensor *  ggml_get_first_tensor(const struct ggml_context * ctx);
struct ggml_tensor *  ggml_get_next_tensor(const struct ggml_context * ctx, struct ggml_tensor * tensor);
struct ggml_tensor * ggml_new_tensor_4d(struct ggml_context * ctx, unsigned type, int64_t ne0, int64_t ne1, int64_t ne2,
                                        int64_t ne3);
struct ggml_tensor * ggml_set_name(struct ggml_tensor * tensor, const char * name);
void *               ggml_get_data(const struct ggml_tensor * tensor);
void                 ggml_set_input(struct ggml_tensor * tensor);
void                 ggml_set_output(struct ggml_tensor * tensor);
size_t               ggml_nbytes(const struct ggml_tensor * tensor);
bool                 ggml_is_contiguous(const struct ggml_tensor * tensor);
int64_t              ggml_blck_size(unsigned type);
size_t               ggml_type_size(unsigned type);
uint16_t             ggml_fp32_to_fp16(float x);
const char *         ggml_type_name(unsigned type);
bool                 ggml_is_quantized(unsigned type);
bool                 ggml_quantize_requires_imatrix(unsigned type);
size_t               ggml_quantize_chunk(unsigned type, const float * src, void * dst, int64_t start, int64_t nrows,
                                         int64_t n_per_row, const float * imatrix);
const struct ggml_type_traits * ggml_get_type_traits(unsigned type);

// ggml: operations

struct ggml_tensor * ggml_add(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b);
struct ggml_tensor * ggml_add_inplace(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b);
struct ggml_tensor * ggml_sub(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b);
struct ggml_tensor * ggml_mul(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b);
struct ggml_tensor * ggml_mul_inplace(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b);
struct ggml_tensor * ggml_div(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b);
struct ggml_tensor * ggml_sqrt(struct ggml_context * ctx, struct ggml_tensor * a);
struct ggml_tensor * ggml_sigmoid(struct ggml_context * ctx, struct ggml_tensor * a);
struct ggml_tensor * ggml_tanh(struct ggml_context * ctx, struct ggml_tensor * a);
struct ggml_tensor * ggml_sum_rows(struct ggml_context * ctx, struct ggml_tensor * a);
struct ggml_tensor * ggml_argmax(struct ggml_context * ctx, struct ggml_tensor * a);
struct ggml_tensor * ggml_concat(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b, int dim);
struct ggml_tensor * ggml_log(struct ggml_context * ctx, struct ggml_tensor * a);
struct ggml_tensor * ggml_exp(struct ggml_context * ctx, struct ggml_tensor * a);
struct ggml_tensor * ggml_softplus(struct ggml_context * ctx, struct ggml_tensor * a);
struct ggml_tensor * ggml_cumsum(struct ggml_context * ctx, struct ggml_tensor * a);
struct ggml_tensor * ggml_tri(struct ggml_context * ctx, struct ggml_tensor * a, unsigned type);
struct ggml_tensor * ggml_solve_tri(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b,
                                    bool left, bool lower, bool uni);
struct ggml_tensor * ggml_scale_bias(struct ggml_context * ctx, struct ggml_tensor * a, float s, float b);
struct ggml_tensor * ggml_rms_norm(struct ggml_context * ctx, struct ggml_tensor * a, float eps);
struct ggml_tensor * ggml_mul_mat(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b);
struct ggml_tensor * ggml_get_rows(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b);
struct ggml_tensor * ggml_set_rows(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b,
                                   struct ggml_tensor * c);
struct ggml_tensor * ggml_cast(struct ggml_context * ctx, struct ggml_tensor * a, unsigned type);
struct ggml_tensor * ggml_cpy(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b);
struct ggml_tensor * ggml_cont(struct ggml_context * ctx, struct ggml_tensor * a);
struct ggml_tensor * ggml_transpose(struct ggml_context * ctx, struct ggml_tensor * a);
struct ggml_tensor * ggml_permute(struct ggml_context * ctx, struct ggml_tensor * a, int axis0, int axis1, int axis2,
                                  int axis3);
struct ggml_tensor * ggml_reshape_4d(struct ggml_context * ctx, struct ggml_tensor * a, int64_t ne0, int64_t ne1,
                                     int64_t ne2, int64_t ne3);
struct ggml_tensor * ggml_view_4d(struct ggml_context * ctx, struct ggml_tensor * a, int64_t ne0, int64_t ne1,
                                  int64_t ne2, int64_t ne3, size_t nb1, size_t nb2, size_t nb3, size_t offset);
void                 ggml_soft_max_add_sinks(struct ggml_tensor * a, struct ggml_tensor * sinks);
struct ggml_tensor * ggml_relu(struct ggml_context * ctx, struct ggml_tensor * a);
struct ggml_tensor * ggml_step(struct ggml_context * ctx, struct ggml_tensor * a);
struct ggml_tensor * ggml_soft_max_ext(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * mask,
                                       float scale, float max_bias);
struct ggml_tensor * ggml_rope_ext(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b,
                                   struct ggml_tensor * c, int n_dims, int mode, int n_ctx_orig, float freq_base,
                                   float freq_scale, float ext_factor, float attn_factor, float beta_fast,
                                   float beta_slow);
struct ggml_tensor * ggml_opt_step_adamw(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * grad,
                                         struct ggml_tensor * m, struct ggml_tensor * v,
                                         struct ggml_tensor * adamw_params);

typedef void (*vt_custom_op)(struct ggml_tensor * dst, int ith, int nth, void * userdata);

struct ggml_tensor * ggml_custom_4d(struct ggml_context * ctx, unsigned type, int64_t ne0, int64_t ne1, int64_t ne2,
                                    int64_t ne3, struct ggml_tensor ** args, int n_args, vt_custom_op fun, int n_tasks,
                                    void * userdata);
struct ggml_tensor * ggml_custom_inplace(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor ** args,
                                         int n_args, vt_custom_op fun, int n_tasks, void * userdata);

// ggml: graphs, backends, buffers

struct ggml_cgraph * ggml_new_graph_custom(struct ggml_context * ctx, size_t size, bool grads);
size_t               ggml_graph_overhead_custom(size_t size, bool grads);
void                 ggml_build_forward_expand(struct ggml_cgraph * cgraph, struct ggml_tensor * tensor);
int                  ggml_graph_n_nodes(struct ggml_cgraph * cgraph);
struct ggml_tensor * ggml_graph_node(struct ggml_cgraph * cgraph, int i);
const char *         ggml_op_desc(const struct ggml_tensor * t);

struct ggml_backend_reg *    ggml_backend_load(const char * path);
size_t                       ggml_backend_dev_count(void);
struct ggml_backend_device * ggml_backend_dev_get(size_t index);
struct ggml_backend_device * ggml_backend_dev_by_type(unsigned type);
const char *                 ggml_backend_dev_name(struct ggml_backend_device * device);
const char *                 ggml_backend_dev_description(struct ggml_backend_device * device);
void                      ggml_backend_dev_memory(struct ggml_backend_device * device, size_t * free, size_t * total);
unsigned                  ggml_backend_dev_type(struct ggml_backend_device * device);
struct ggml_backend_reg * ggml_backend_dev_backend_reg(struct ggml_backend_device * device);
const char *              ggml_backend_reg_name(struct ggml_backend_reg * reg);
size_t                    ggml_backend_reg_dev_count(struct ggml_backend_reg * reg);
struct ggml_backend *     ggml_backend_dev_init(struct ggml_backend_device * device, const char * params);
bool ggml_backend_dev_supports_op(struct ggml_backend_device * device, const struct ggml_tensor * op);
struct ggml_backend_device * ggml_backend_get_device(struct ggml_backend * backend);
struct ggml_backend *        ggml_backend_cpu_init(void);
void                         ggml_threadpool_params_init(struct ggml_threadpool_params * params, int n_threads);
struct ggml_threadpool *     ggml_threadpool_new(struct ggml_threadpool_params * params);
void                         ggml_threadpool_free(struct ggml_threadpool * threadpool);
void ggml_backend_cpu_set_threadpool(struct ggml_backend * backend_cpu, struct ggml_threadpool * threadpool);
void ggml_backend_cpu_set_n_threads(struct ggml_backend * backend_cpu, int n_threads);
void ggml_backend_free(struct ggml_backend * backend);
struct ggml_backend_buffer_type * ggml_backend_get_default_buffer_type(struct ggml_backend * backend);
struct ggml_backend_buffer *      ggml_backend_alloc_buffer(struct ggml_backend * backend, size_t size);
size_t                            ggml_backend_get_alignment(struct ggml_backend * backend);
size_t ggml_backend_buft_get_alloc_size(struct ggml_backend_buffer_type * buft, const struct ggml_tensor * tensor);
size_t ggml_backend_buffer_get_alloc_size(struct ggml_backend_buffer * buffer, const struct ggml_tensor * tensor);
struct ggml_backend_buffer * ggml_backend_alloc_ctx_tensors(struct ggml_context * ctx, struct ggml_backend * backend);
struct ggml_backend_buffer * ggml_backend_cpu_buffer_from_ptr(void * ptr, size_t size);
void                         ggml_backend_buffer_free(struct ggml_backend_buffer * buffer);
void *                       ggml_backend_buffer_get_base(struct ggml_backend_buffer * buffer);
size_t                       ggml_backend_buffer_get_size(struct ggml_backend_buffer * buffer);
int  ggml_backend_tensor_alloc(struct ggml_backend_buffer * buffer, struct ggml_tensor * tensor, void * addr);
void ggml_backend_tensor_set(struct ggml_tensor * tensor, const void * data, size_t offset, size_t size);
void ggml_backend_tensor_get(const struct ggml_tensor * tensor, void * data, size_t offset, size_t size);
void ggml_backend_tensor_memset(struct ggml_tensor * tensor, uint8_t value, size_t offset, size_t size);
int  ggml_backend_graph_compute(struct ggml_backend * backend, struct ggml_cgraph * cgraph);
struct ggml_gallocr * ggml_gallocr_new(struct ggml_backend_buffer_type * buft);
void                  ggml_gallocr_free(struct ggml_gallocr * galloc);
bool                  ggml_gallocr_reserve(struct ggml_gallocr * galloc, struct ggml_cgraph * graph);
bool                  ggml_gallocr_alloc_graph(struct ggml_gallocr * galloc, struct ggml_cgraph * graph);
void ggml_gallocr_reserve_n_size(struct ggml_gallocr * galloc, struct ggml_cgraph * graph, const int * node_buffer_ids,
                                 const int * leaf_buffer_ids, size_t * sizes);
size_t ggml_gallocr_get_buffer_size(struct ggml_gallocr * galloc, int buffer_id);

// gguf

struct gguf_context * gguf_init_empty(void);
struct gguf_context * gguf_init_from_file(const char * fname, struct gguf_init_params params);
void                  gguf_free(struct gguf_context * ctx);
size_t                gguf_get_alignment(const struct gguf_context * ctx);
size_t                gguf_get_data_offset(const struct gguf_context * ctx);
int64_t               gguf_get_n_kv(const struct gguf_context * ctx);
int64_t               gguf_find_key(const struct gguf_context * ctx, const char * key);
const char *          gguf_get_key(const struct gguf_context * ctx, int64_t key_id);
unsigned              gguf_get_kv_type(const struct gguf_context * ctx, int64_t key_id);
unsigned              gguf_get_arr_type(const struct gguf_context * ctx, int64_t key_id);
const char *          gguf_get_val_str(const struct gguf_context * ctx, int64_t key_id);
const void *          gguf_get_val_data(const struct gguf_context * ctx, int64_t key_id);
size_t                gguf_get_arr_n(const struct gguf_context * ctx, int64_t key_id);
const void *          gguf_get_arr_data(const struct gguf_context * ctx, int64_t key_id);
const char *          gguf_get_arr_str(const struct gguf_context * ctx, int64_t key_id, size_t i);
int64_t               gguf_get_n_tensors(const struct gguf_context * ctx);
size_t                gguf_get_tensor_offset(const struct gguf_context * ctx, int64_t tensor_id);
const char *          gguf_get_tensor_name(const struct gguf_context * ctx, int64_t tensor_id);
struct ggml_tensor *  ggml_get_tensor(struct ggml_context * ctx, const char * name);
void                  gguf_set_val_u8(struct gguf_context * ctx, const char * key, uint8_t val);
void                  gguf_set_val_i8(struct gguf_context * ctx, const char * key, int8_t val);
void                  gguf_set_val_u16(struct gguf_context * ctx, const char * key, uint16_t val);
void                  gguf_set_val_i16(struct gguf_context * ctx, const char * key, int16_t val);
void                  gguf_set_val_u32(struct gguf_context * ctx, const char * key, uint32_t val);
void                  gguf_set_val_i32(struct gguf_context * ctx, const char * key, int32_t val);
void                  gguf_set_val_f32(struct gguf_context * ctx, const char * key, float val);
void                  gguf_set_val_u64(struct gguf_context * ctx, const char * key, uint64_t val);
void                  gguf_set_val_i64(struct gguf_context * ctx, const char * key, int64_t val);
void                  gguf_set_val_f64(struct gguf_context * ctx, const char * key, double val);
void                  gguf_set_val_bool(struct gguf_context * ctx, const char * key, bool val);
void                  gguf_set_val_str(struct gguf_context * ctx, const char * key, const char * val);
void    gguf_set_arr_data(struct gguf_context * ctx, const char * key, unsigned type, const void * data, size_t n);
void    gguf_set_arr_str(struct gguf_context * ctx, const char * key, const char ** data, size_t n);
int64_t gguf_remove_key(struct gguf_context * ctx, const char * key);
void    gguf_set_tensor_type(struct gguf_context * ctx, const char * name, unsigned type);
void    gguf_add_tensor(struct gguf_context * ctx, const struct ggml_tensor * tensor);
size_t  gguf_get_meta_size(const struct gguf_context * ctx);
void    gguf_get_meta_data(const struct gguf_context * ctx, void * data);

// llama.cpp: vocabulary and chat template

typedef void (*vt_log_callback)(unsigned level, const char * text, void * user_data);

void                       ggml_log_set(vt_log_callback log_callback, void * user_data);
void                       llama_log_set(vt_log_callback log_callback, void * user_data);
struct llama_model_params  llama_model_default_params(void);
struct llama_model *       llama_model_load_from_file(const char * path_model, struct llama_model_params params);
void                       llama_model_free(struct llama_model * model);
const struct llama_vocab * llama_model_get_vocab(const struct llama_model * model);
int32_t                    llama_vocab_n_tokens(const struct llama_vocab * vocab);
bool                       llama_vocab_is_eog(const struct llama_vocab * vocab, int32_t token);
int32_t                    llama_vocab_bos(const struct llama_vocab * vocab);
int32_t                    llama_vocab_eos(const struct llama_vocab * vocab);
bool                       llama_vocab_get_add_bos(const struct llama_vocab * vocab);
int32_t llama_tokenize(const struct llama_vocab * vocab, const char * text, int32_t text_len, int32_t * tokens,
                       int32_t n_tokens_max, bool add_special, bool parse_special);
int32_t llama_token_to_piece(const struct llama_vocab * vocab, int32_t token, char * buf, int32_t length,
                             int32_t lstrip, bool special);

// llama.cpp: running a model

struct llama_context_params llama_context_default_params(void);
struct llama_context *      llama_init_from_model(struct llama_model * model, struct llama_context_params params);
void                        llama_free(struct llama_context * ctx);
struct llama_memory_i *     llama_get_memory(const struct llama_context * ctx);
void                        llama_memory_clear(struct llama_memory_i * mem, bool data);
int32_t                     llama_decode(struct llama_context * ctx, struct llama_batch batch);
float *                     llama_get_logits(struct llama_context * ctx);
struct llama_adapter_lora * llama_adapter_lora_init(struct llama_model * model, const char * path_lora);
void                        llama_adapter_lora_free(struct llama_adapter_lora * adapter);
int32_t llama_set_adapter_lora(struct llama_context * ctx, struct llama_adapter_lora * adapter, float scale);

#ifdef __cplusplus
}
#endif
