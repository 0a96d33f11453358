// A backend as others look from outside, for tests: a device of 128 MiB, of which it gives as many bytes as BYTES says,
// or all. It computes nothing where COMPUTES is set, so that all is 0; else it is lost as soon as it computes. It is
// CUDA0, which gathers no rows of K-quants; or with METAL_SUPPORTS, a file that holds the function of ggml's by which
// the Metal backend says what it has, it is Metal, without bfloat16 where WITHOUT_BFLOAT16 is set.
#include "ggml-backend-impl.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>

#ifdef METAL_SUPPORTS
#define BACKEND "Metal"
#define DEVICE  BACKEND
#else
#define BACKEND "CUDA"
#define DEVICE  BACKEND "0"
#endif

static const size_t memory = 128 << 20;
static size_t       used;

static size_t given() {
    const char * bytes = getenv("BYTES");
    return bytes && *bytes ? strtoull(bytes, nullptr, 10) : memory;
}

// Buffers are memory of the process.

static void buffer_free(ggml_backend_buffer_t b) {
    used -= b->size;
    free(b->context);
}
static void * buffer_base(ggml_backend_buffer_t b) { return b->context; }
static void   buffer_memset(ggml_backend_buffer_t, ggml_tensor * t, uint8_t value, size_t at, size_t n) {
    memset((char *) t->data + at, value, n);
}
static void buffer_set(ggml_backend_buffer_t, ggml_tensor * t, const void * data, size_t at, size_t n) {
    memcpy((char *) t->data + at, data, n);
}
static void buffer_get(ggml_backend_buffer_t, const ggml_tensor * t, void * data, size_t at, size_t n) {
    memcpy(data, (const char *) t->data + at, n);
}
static void buffer_clear(ggml_backend_buffer_t b, uint8_t value) { memset(b->context, value, b->size); }

static const char *          type_name(ggml_backend_buffer_type_t) { return DEVICE; }
static size_t                type_alignment(ggml_backend_buffer_type_t) { return 128; }
static ggml_backend_buffer_t type_alloc(ggml_backend_buffer_type_t type, size_t size) {
    if (used + size > given()) {
        return nullptr;
    }
    used += size;
    auto * b               = new ggml_backend_buffer();
    b->iface.free_buffer   = buffer_free;
    b->iface.get_base      = buffer_base;
    b->iface.memset_tensor = buffer_memset;
    b->iface.set_tensor    = buffer_set;
    b->iface.get_tensor    = buffer_get;
    b->iface.clear         = buffer_clear;
    b->buft                = type;
    b->size                = size;
    b->context             = aligned_alloc(128, (size + 127) / 128 * 128 + 128);
    memset(b->context, 0, size);
    return b;
}

static const char * name(ggml_backend_dev_t) { return DEVICE; }
static const char * description(ggml_backend_dev_t) { return "a device for tests"; }
static void         get_memory(ggml_backend_dev_t, size_t * free, size_t * total) {
    *free  = memory - used;
    *total = memory;
}
static enum ggml_backend_dev_type get_type(ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_GPU; }

static ggml_backend_device      device;
static ggml_backend_reg         registry;
static ggml_backend_buffer_type type;

static ggml_backend_buffer_type_t get_type_of_buffers(ggml_backend_dev_t) { return &type; }

#ifdef METAL_SUPPORTS

#include "ggml-impl.h"

// What that function asks ggml for. It asks of float32 alone whether it lies without gaps.

extern "C" {
enum ggml_unary_op ggml_get_unary_op(const ggml_tensor * t) { return (enum ggml_unary_op) t->op_params[0]; }
enum ggml_glu_op   ggml_get_glu_op(const ggml_tensor * t) { return (enum ggml_glu_op) t->op_params[0]; }

static bool without_gaps(const ggml_tensor * t, int from) {
    for (int i = from; i < GGML_MAX_DIMS; i++) {
        if (t->ne[i] != 1 && t->nb[i] != (i == 0 ? sizeof(float) : t->nb[i - 1] * t->ne[i - 1])) {
            return false;
        }
    }
    return true;
}

bool ggml_is_contiguous(const ggml_tensor * t) { return without_gaps(t, 0); }
bool ggml_is_contiguous_1(const ggml_tensor * t) { return t->nb[0] == sizeof(float) && without_gaps(t, 2); }
bool ggml_is_contiguous_rows(const ggml_tensor * t) { return t->nb[0] == sizeof(float); }
void ggml_abort(const char *, int, const char *, ...) { abort(); }
}

struct metal_device {
    struct {
        bool has_simdgroup_mm, has_simdgroup_reduction, has_bfloat;
    } props;
};
typedef metal_device * ggml_metal_device_t;
#include METAL_SUPPORTS

static bool supports(ggml_backend_dev_t, const ggml_tensor * op) {
    metal_device metal = { { true, true, getenv("WITHOUT_BFLOAT16") == nullptr } };
    return ggml_metal_device_supports_op(&metal, op);
}

#else

static bool supports(ggml_backend_dev_t, const ggml_tensor * op) {
    return op->op != GGML_OP_GET_ROWS || op->src[0]->type < GGML_TYPE_Q2_K || op->src[0]->type > GGML_TYPE_Q8_K;
}

#endif

static const char *     backend_name(ggml_backend_t) { return DEVICE; }
static void             backend_free(ggml_backend_t b) { delete b; }
static enum ggml_status backend_compute(ggml_backend_t, ggml_cgraph *, int) {
    if (!getenv("COMPUTES")) {
        throw std::runtime_error("the device is lost");
    }
    return GGML_STATUS_SUCCESS;
}

static ggml_backend_t init_backend(ggml_backend_dev_t, const char *) {
    auto * b               = new ggml_backend();
    b->iface.get_name      = backend_name;
    b->iface.free          = backend_free;
    b->iface.graph_compute = backend_compute;
    b->device              = &device;
    return b;
}

static const char *       registry_name(ggml_backend_reg_t) { return BACKEND; }
static size_t             device_count(ggml_backend_reg_t) { return 1; }
static ggml_backend_dev_t get_device(ggml_backend_reg_t, size_t) { return &device; }

extern "C" ggml_backend_reg_t ggml_backend_init(void) {
    type.iface.get_name      = type_name;
    type.iface.alloc_buffer  = type_alloc;
    type.iface.get_alignment = type_alignment;
    type.device              = &device;

    device.iface.get_name        = name;
    device.iface.get_description = description;
    device.iface.get_memory      = get_memory;
    device.iface.get_type        = get_type;
    device.iface.init_backend    = init_backend;
    device.iface.get_buffer_type = get_type_of_buffers;
    device.iface.supports_op     = supports;
    device.reg                   = &registry;

    registry.api_version            = GGML_BACKEND_API_VERSION;
    registry.iface.get_name         = registry_name;
    registry.iface.get_device_count = device_count;
    registry.iface.get_device       = get_device;
    return &registry;
}
