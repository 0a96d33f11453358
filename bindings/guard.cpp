#include "guard.h"

#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif
#include <pthread.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

static thread_local std::string last_error;

static void keep_error(const char * text) {
    last_error = text;
    while (!last_error.empty() && (last_error.back() == '\n' || last_error.back() == ' ')) {
        last_error.pop_back();
    }
}

static void on_log(unsigned level, const char * text, void *) {
    enum { LEVEL_ERROR = 4 };
    if (level == LEVEL_ERROR) {
        keep_error(text);
    }
}

// Runs f; on an exception keeps its message and returns failed.
template <typename T, typename F> static T guarded(T failed, F f) {
    try {
        return f();
    } catch (const std::exception & e) { keep_error(e.what()); } catch (...) {
        keep_error("unknown C++ exception");
    }
    return failed;
}

void vt_capture_log(void) {
    ggml_log_set(on_log, nullptr);
    llama_log_set(on_log, nullptr);
}

void vt_trim(void) {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

int vt_take_error(char * buf, int size) {
    int n = (int) last_error.size() < size - 1 ? (int) last_error.size() : size - 1;
    memcpy(buf, last_error.data(), n);
    buf[n] = 0;
    last_error.clear();
    return n;
}

void vt_forget_error(void) { last_error.clear(); }

void vt_to_float(unsigned type, const void * data, float * out, int64_t n) {
    ggml_get_type_traits(type)->to_float(data, out, n);
}

// A library has a copy of ggml's base with a log and an abort of its own. ggml_abort comes back from a callback only to
// end the process; an exception ends the operation instead.
static void on_abort(const char * text) { throw std::runtime_error(text); }

#ifdef _WIN32

static void * open_library(const char * path) {
    std::vector<wchar_t> wide(MultiByteToWideChar(CP_UTF8, 0, path, -1, nullptr, 0));
    MultiByteToWideChar(CP_UTF8, 0, path, -1, wide.data(), (int) wide.size());
    HMODULE library = LoadLibraryW(wide.data());
    if (!library) {
        keep_error(("Windows cannot load it: error " + std::to_string(GetLastError())).c_str());
    }
    return (void *) library;
}

static void * symbol(void * library, const char * name) { return (void *) GetProcAddress((HMODULE) library, name); }

#else

static void * open_library(const char * path) {
    void * library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        keep_error(dlerror());
    }
    return library;
}

static void * symbol(void * library, const char * name) { return dlsym(library, name); }

#endif

struct ggml_backend_reg * vt_load_backend(const char * path) {
    return guarded((struct ggml_backend_reg *) nullptr, [&]() -> struct ggml_backend_reg * {
        void * library = open_library(path);
        if (!library) {
            return nullptr;
        }
        if (auto set = (decltype(&ggml_log_set)) symbol(library, "ggml_log_set")) {
            set(on_log, nullptr);
        }
        if (auto set = (void * (*)(void (*)(const char *))) symbol(library, "ggml_set_abort_callback")) {
            set(on_abort);
        }
        return ggml_backend_load(path);
    });
}

struct ggml_backend * vt_device_init(struct ggml_backend_device * device) {
    return guarded((struct ggml_backend *) nullptr, [&] { return ggml_backend_dev_init(device, nullptr); });
}

struct ggml_backend_buffer * vt_alloc_tensors(struct ggml_context * ctx, struct ggml_backend * backend) {
    return guarded((struct ggml_backend_buffer *) nullptr,
                   [&] { return ggml_backend_alloc_ctx_tensors(ctx, backend); });
}

struct ggml_backend_buffer * vt_alloc_buffer(struct ggml_backend * backend, size_t size) {
    return guarded((struct ggml_backend_buffer *) nullptr, [&] { return ggml_backend_alloc_buffer(backend, size); });
}

bool vt_tensor_place(struct ggml_backend_buffer * buffer, struct ggml_tensor * tensor, size_t offset) {
    return guarded(false, [&] {
        return ggml_backend_tensor_alloc(buffer, tensor, (char *) ggml_backend_buffer_get_base(buffer) + offset) == 0;
    });
}

bool vt_alloc_graph(struct ggml_gallocr * galloc, struct ggml_cgraph * graph) {
    // ggml takes the plan of the graph before where both have as many nodes and leaves, though they be others.
    return guarded(false,
                   [&] { return ggml_gallocr_reserve(galloc, graph) && ggml_gallocr_alloc_graph(galloc, graph); });
}

int vt_graph_compute(struct ggml_backend * backend, struct ggml_cgraph * graph) {
    return guarded(-1, [&] { return ggml_backend_graph_compute(backend, graph); });
}

bool vt_tensor_set(struct ggml_tensor * tensor, const void * data, size_t size) {
    return guarded(false, [&] { return ggml_backend_tensor_set(tensor, data, 0, size), true; });
}

bool vt_tensor_get(const struct ggml_tensor * tensor, void * data, size_t size) {
    return guarded(false, [&] { return ggml_backend_tensor_get(tensor, data, 0, size), true; });
}

void vt_tensor_displace(struct ggml_tensor * tensor) {
    tensor->data   = nullptr;
    tensor->buffer = nullptr;
}

bool vt_tensor_zero(struct ggml_tensor * tensor) {
    return guarded(false, [&] { return ggml_backend_tensor_memset(tensor, 0, 0, ggml_nbytes(tensor)), true; });
}

struct gguf_context * vt_gguf_open(const char * path, struct ggml_context ** tensors) {
    return guarded((struct gguf_context *) nullptr, [&] { return gguf_init_from_file(path, { true, tensors }); });
}

struct llama_model * vt_load_vocab(const char * path) {
    return guarded((struct llama_model *) nullptr, [&] {
        void *                    no_devices = nullptr;
        struct llama_model_params params     = llama_model_default_params();
        params.devices                       = &no_devices;
        params.vocab_only                    = true;
        return llama_model_load_from_file(path, params);
    });
}

struct llama_model * vt_load_model(const char * path, struct ggml_backend_device * device) {
    return guarded((struct llama_model *) nullptr, [&] {
        enum { ALL_LAYERS = 1 << 20 };
        void *                    devices[] = { device, nullptr };
        struct llama_model_params params    = llama_model_default_params();
        params.devices                      = devices;
        params.n_gpu_layers                 = device ? ALL_LAYERS : 0;
        return llama_model_load_from_file(path, params);
    });
}

struct llama_context * vt_new_context(struct llama_model * model, uint32_t n_ctx, uint32_t n_batch, int32_t n_threads,
                                      bool on_device) {
    return guarded((struct llama_context *) nullptr, [&] {
        struct llama_context_params params = llama_context_default_params();
        params.n_ctx                       = n_ctx;
        params.n_batch                     = n_batch;
        params.n_ubatch                    = n_batch;
        params.n_threads                   = n_threads;
        params.n_threads_batch             = n_threads;
        params.offload_kqv                 = on_device;
        params.op_offload                  = on_device;
        return llama_init_from_model(model, params);
    });
}

int32_t vt_decode(struct llama_context * context, int32_t * tokens, int32_t n, int32_t rows) {
    return guarded((int32_t) INT32_MIN, [&] {
        std::vector<int8_t> logits(n);
        std::fill(logits.end() - rows, logits.end(), (int8_t) 1);
        struct llama_batch batch = {};
        batch.n_tokens           = n;
        batch.token              = tokens;
        batch.logits             = logits.data();
        return llama_decode(context, batch);
    });
}

// Runs f on a thread with a stack of its own size, whose error becomes this thread's. f must not throw.
template <typename F> static void on_stack(size_t size, F f) {
    pthread_attr_t attr;
    pthread_t      thread;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, size);
    std::string error;
    const auto  run = [&] {
        f();
        error = last_error;
    };
    int failed = pthread_create(
        &thread, &attr, [](void * of) -> void * { return (*(decltype(&run)) of)(), nullptr; }, (void *) &run);
    pthread_attr_destroy(&attr);
    if (failed) {
        throw std::runtime_error("no memory for a thread's stack");
    }
    pthread_join(thread, nullptr);
    last_error = error;
}

int32_t vt_tokenize(const struct llama_vocab * vocab, const char * text, int32_t text_len, int32_t * tokens,
                    int32_t n_max, bool add_special, bool parse_special) {
    int32_t n        = INT32_MIN;
    auto    tokenize = [&] {
        n = guarded((int32_t) INT32_MIN,
                    [&] { return llama_tokenize(vocab, text, text_len, tokens, n_max, add_special, parse_special); });
    };
    // std::regex, which finds the words for many vocabularies, calls itself for each letter of a word, with some
    // hundred bytes of the stack.
    const int32_t letters = 2 << 10, bytes_a_letter = 1 << 10;
    if (text_len <= letters) {
        tokenize();
        return n;
    }
    return guarded((int32_t) INT32_MIN,
                   [&] { return on_stack((size_t) text_len * bytes_a_letter + (1 << 20), tokenize), n; });
}

size_t vt_tensors_and_sources(struct ggml_context * ctx) {
    size_t n = 0;
    for (ggml_tensor * t = ggml_get_first_tensor(ctx); t; t = ggml_get_next_tensor(ctx, t)) {
        n +=
            1 + (size_t) std::count_if(t->src, t->src + VT_MAX_SRC, [](const ggml_tensor * s) { return s != nullptr; });
    }
    return n;
}
