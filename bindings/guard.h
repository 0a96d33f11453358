// Calls into C++ that may throw, with the exception turned into a message; and the log of ggml and llama.cpp, of which the last
// error line is kept to explain a failure.
#pragma once

#include "../ggml/vera.h"
#include "capi.h"

#ifdef __cplusplus
extern "C" {
#endif

// Sends the log of ggml and llama.cpp to the store that vt_take_error reads. Nothing is printed.
void vt_capture_log(void);

// Copies the last error message into buf (NUL-terminated, cut to size) and forgets it. Returns its length, 0 if there was none.
int vt_take_error(char * buf, int size);

// Dequantises n values of a type whose traits have to_float.
void vt_to_float(unsigned type, const void * data, float * out, int64_t n);

struct gguf_context * vt_gguf_open(const char * path, struct ggml_context ** tensors);
struct llama_model *  vt_load_vocab(const char * path);

struct llama_model *  vt_load_model(const char * path);

// A context that computes on the CPU alone, with room for n_ctx tokens, at most n_batch in a call.
struct llama_context * vt_new_context(struct llama_model * model, uint32_t n_ctx, uint32_t n_batch, int32_t n_threads);

// llama_decode with logits for the last rows of n tokens; INT32_MIN after an exception.
int32_t vt_decode(struct llama_context * context, int32_t * tokens, int32_t n, int32_t rows);

// As their llama_* namesakes; INT32_MIN after an exception.
int32_t vt_tokenize(const struct llama_vocab * vocab, const char * text, int32_t text_len, int32_t * tokens, int32_t n_max, bool add_special,
                    bool parse_special);
int32_t vt_apply_template(const char * tmpl, const struct llama_chat_message * chat, size_t n, bool add_assistant, char * buf, int32_t size);

// The text of tokens, with strip without a space that it begins with. Gives its size, negative where there was no room for it; INT32_MIN after an exception.
int32_t vt_detokenize(const struct llama_vocab * vocab, const int32_t * tokens, int32_t n, char * text, int32_t size, bool strip, bool special);

#ifdef __cplusplus
}
#endif
