#include "kernels.h"

#if !defined(__aarch64__)

#include "portable.h"

#include "kernels.hpp"

#endif
