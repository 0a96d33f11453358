// Calls into C++ that may throw, with the exception turned into a message; and the log of ggml and llama.cpp, of which
// each thread keeps its last error line to explain a failure.
#pragma once

#include "../ggml/vera.h"
#include "../ggml/capi.h"

#ifdef __cplusplus
extern "C" {
#endif

// Sends the log of ggml and llama.cpp to the store that vt_take_error reads. Nothing is printed.
void vt_capture_log(void);

// Gives the system what was freed.
void vt_trim(void);

// Copies this thread's last error message into buf (NUL-terminated, cut to size) and forgets it. Returns its length, 0
// if there was none.
int vt_take_error(char * buf, int size);

// Forgets it.
void vt_forget_error(void);

// Dequantises n values of a type whose traits have to_float.
void vt_to_float(unsigned type, const void * data, float * out, int64_t n);

// Loads a library with a backend, whose log and aborts then come here, and registers its devices; NULL where that
// fails.
struct ggml_backend_reg * vt_load_backend(const char * path);

// As their ggml_* namesakes for a backend that may throw: NULL, false or -1 after an exception.
struct ggml_backend *        vt_device_init(struct ggml_backend_device * device);
struct ggml_backend_buffer * vt_alloc_tensors(struct ggml_context * ctx, struct ggml_backend * backend);
struct ggml_backend_buffer * vt_alloc_buffer(struct ggml_backend * backend, size_t size);
// A place at offset of buffer for tensor.
bool vt_tensor_place(struct ggml_backend_buffer * buffer, struct ggml_tensor * tensor, size_t offset);
void vt_tensor_displace(struct ggml_tensor * tensor);
bool vt_alloc_graph(struct ggml_gallocr * galloc, struct ggml_cgraph * graph);
int  vt_graph_compute(struct ggml_backend * backend, struct ggml_cgraph * graph);
bool vt_tensor_set(struct ggml_tensor * tensor, const void * data, size_t size);
bool vt_tensor_get(const struct ggml_tensor * tensor, void * data, size_t size);
bool vt_tensor_zero(struct ggml_tensor * tensor);

// How many tensors a context has, and sources of theirs.
size_t vt_tensors_and_sources(struct ggml_context * ctx);

struct gguf_context * vt_gguf_open(const char * path, struct ggml_context ** tensors);
struct llama_model *  vt_load_vocab(const char * path);

// With all layers on the device; NULL is the CPU.
struct llama_model * vt_load_model(const char * path, struct ggml_backend_device * device);

// A context with room for n_ctx tokens, at most n_batch in a call. on_device tells where keys and values are.
struct llama_context * vt_new_context(struct llama_model * model, uint32_t n_ctx, uint32_t n_batch, int32_t n_threads,
                                      bool on_device);

// llama_decode with logits for the last rows of n tokens; INT32_MIN after an exception.
int32_t vt_decode(struct llama_context * context, int32_t * tokens, int32_t n, int32_t rows);

// llama_tokenize; INT32_MIN after an exception.
int32_t vt_tokenize(const struct llama_vocab * vocab, const char * text, int32_t text_len, int32_t * tokens,
                    int32_t n_max, bool add_special, bool parse_special);

#ifdef __cplusplus
}
#endif
