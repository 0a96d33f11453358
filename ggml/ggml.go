// Package ggml holds what veratune adds to ggml: kernels that train on quantised weights, each one node of a ggml
// graph.
//
// call.h lists the operations. Their kernels are written once, in terms of vectors of some width (vectors.hpp). One C++
// file for each instruction set compiles them, and isa.cpp picks the best that the processor has, whatever the
// compiler's flags were. The environment variable VERATUNE_ISA (portable, avx2, avx512, avx512bf16, amx; on Arm neon,
// dotprod, i8mm, bf16) keeps it from picking a better one.
//
// Only package bindings calls these; there is no Go code here.
package ggml

// #cgo CXXFLAGS: -std=c++17 -O3 -Wno-psabi
import "C"
