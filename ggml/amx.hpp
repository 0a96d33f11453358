// Tiles with AMX. A tile register holds 16 rows of 64 bytes. A's words are stored as a tile needs them, and so are 16
// words of k of 16 columns of a panel; both are loaded without repacking. Two tiles of A and two of B give four
// products: 32 rows by 32 columns.
#pragma once

#include "tiles.hpp"

namespace vera {
namespace KERNELS {

#if HAS_AMX

// All tile registers have 16 rows of 64 bytes. This is a constant because compilers think that _tile_loadconfig reads
// eight bytes, and drop stores to the rest.
alignas(64) static const struct {
    uint8_t  palette = 1, zero[15] = {};
    uint16_t row_bytes[16] = { 64, 64, 64, 64, 64, 64, 64, 64 };
    uint8_t  rows[16]      = { 16, 16, 16, 16, 16, 16, 16, 16 };
} TILES;
static_assert(sizeof TILES == 64, "a tile configuration has 64 bytes");

// Configures the tile registers of a thread while it exists.
template <bool HALF> struct tile_registers {
    tile_registers() {
        if (HALF) {
            _tile_loadconfig(&TILES);
        }
    }

    ~tile_registers() {
        if (HALF) {
            _tile_release();
        }
    }
};

// c (+)= a b for 32 rows of A, or 16 if not TWO, and 32 columns of a panel. k is a multiple of 16 words.
template <bool TWO> static void amx_tile(int64_t k, const int32_t * a, int64_t stride, const int32_t * b,
                                         const place & to) {
    if (to.add) {
        _tile_loadd(0, to.c, to.ldc * 4);
        _tile_loadd(1, to.c + 16, to.ldc * 4);
        if (TWO) {
            _tile_loadd(2, to.c + 16 * to.ldc, to.ldc * 4);
            _tile_loadd(3, to.c + 16 * to.ldc + 16, to.ldc * 4);
        }
    } else {
        _tile_zero(0);
        _tile_zero(1);
        if (TWO) {
            _tile_zero(2);
            _tile_zero(3);
        }
    }
    for (int64_t p = 0; p < k; p += 16) {
        _tile_loadd(4, a + p, stride * 4);
        _tile_loadd(6, b + p * PANEL, PANEL * 4);
        _tile_loadd(7, b + p * PANEL + 16, PANEL * 4);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (TWO) {
            _tile_loadd(5, a + 16 * stride + p, stride * 4);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, to.c, to.ldc * 4);
    _tile_stored(1, to.c + 16, to.ldc * 4);
    if (TWO) {
        _tile_stored(2, to.c + 16 * to.ldc, to.ldc * 4);
        _tile_stored(3, to.c + 16 * to.ldc + 16, to.ldc * 4);
    }
}

// AVX-512 computes the rows that do not fill a tile.
static void amx_tiles(int64_t rows, int64_t k, const int32_t * a, int64_t stride, const int32_t * b, const place & to) {
    __asm__ volatile("" ::: "memory");  // compilers do not know that _tile_loadd reads memory
    int64_t i = 0;
    for (; i + 16 <= rows; i += i + 32 <= rows ? 32 : 16) {
        for (int j = 0; j < PANEL; j += 32) {
            (i + 32 <= rows ? amx_tile<true> : amx_tile<false>) (k, a + i * stride, stride, b + j, to.offset(i, j));
        }
    }
    tiles<true>(rows - i, k, a + i * stride, stride, b, to.offset(i, 0));
}

#else

template <bool HALF> struct tile_registers {
    tile_registers() {}
};

#endif

// The fastest tiles of the instruction set.
template <bool HALF> static void best_tiles(int64_t rows, int64_t k, const int32_t * a, int64_t stride,
                                            const int32_t * b, const place & to) {
#if HAS_AMX
    if (HALF) {
        amx_tiles(rows, k, a, stride, b, to);
        return;
    }
#elif PAIRED
    if (HALF) {
        paired_tiles(rows, k, a, stride, b, to);
        return;
    }
#endif
    tiles<HALF>(rows, k, a, stride, b, to);
}

}  // namespace KERNELS
}  // namespace vera
