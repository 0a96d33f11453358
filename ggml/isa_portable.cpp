#include "kernels.h"

#include "portable.h"

#include "kernels.hpp"
