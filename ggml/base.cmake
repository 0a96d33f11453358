# The base of ggml, which each backend's library has in it. GGML is the folder ml/backend/ggml/ggml of the pinned Go module.
find_package(Threads REQUIRED)

set(CMAKE_CXX_STANDARD 17)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

add_compile_definitions(NDEBUG _GNU_SOURCE GGML_VERSION=0x0 GGML_COMMIT=0x0 GGML_SCHED_MAX_COPIES=4)

set(base ${GGML}/src)
add_library(ggml-base OBJECT
    ${base}/ggml.c ${base}/ggml.cpp ${base}/ggml-alloc.c ${base}/ggml-backend.cpp ${base}/ggml-opt.cpp ${base}/ggml-threading.cpp ${base}/ggml-quants.c
    ${base}/gguf.cpp ${base}/mem_hip.cpp ${base}/mem_nvml.cpp ${base}/mem_dxgi_pdh.cpp)
target_include_directories(ggml-base PUBLIC ${GGML}/include ${base})
