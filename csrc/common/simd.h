// Vector types of the instruction set a kernel source is compiled for (VFRNN_ISA, see CMakeLists.txt).
//
// Everything a kernel source defines lives in namespace vfrnn::VFRNN_ISA, so that the copies compiled for different
// instruction sets never meet in the linker. `Vec<T>` is a GCC vector: + - * / and comparisons work lane by lane.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace vfrnn {
namespace VFRNN_ISA {

// A tile of a product has two sums for each of its rows. They fit the registers beside two vectors of weights and what
// an entry for all lanes takes: one register where it is broadcast from memory, one of each row on NEON, and one more
// for the product where no multiply-add is (tools/hot_loops.py tells whether they do).
#if defined(__AVX512F__)
inline constexpr int vector_bytes = 64;
inline constexpr int vector_registers = 32;
inline constexpr int tile_rows = 14;
#elif defined(__AVX2__)
inline constexpr int vector_bytes = 32;
inline constexpr int vector_registers = 16;
inline constexpr int tile_rows = 6;
#elif defined(__aarch64__)
inline constexpr int vector_bytes = 16;
inline constexpr int vector_registers = 32;
inline constexpr int tile_rows = 9;
#else
inline constexpr int vector_bytes = 16;
inline constexpr int vector_registers = 16;
inline constexpr int tile_rows = 5;
#endif

// Vectors in registers, and in arrays of their own, have the alignment of their length; `in_memory` is one at any
// address of an array of numbers (aligned(alignof(T))), which it may view (may_alias). It is for load and store alone:
// a compiler may forget the alignment of a type that passes through a template, as clang does.
template <class T>
struct VecOf;
template <>
struct VecOf<float> {
  typedef float type __attribute__((vector_size(vector_bytes)));
  typedef int32_t ints __attribute__((vector_size(vector_bytes)));
  typedef float in_memory __attribute__((vector_size(vector_bytes), aligned(4), may_alias));
};
template <>
struct VecOf<double> {
  typedef double type __attribute__((vector_size(vector_bytes)));
  typedef int64_t ints __attribute__((vector_size(vector_bytes)));
  typedef double in_memory __attribute__((vector_size(vector_bytes), aligned(8), may_alias));
};
template <class T>
using Vec = typename VecOf<T>::type;
template <class T>
using IntVec = typename VecOf<T>::ints;
template <class T>
inline constexpr int lanes = vector_bytes / int(sizeof(T));

template <class T>
inline Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename VecOf<T>::in_memory*>(p);
}
template <class T>
inline void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename VecOf<T>::in_memory*>(p) = v;
}
// count < N entries, in pieces whose sizes are the powers of two that add up to it: a few moves, and no loop.
template <int N, class T>
[[gnu::always_inline]] inline void copy_part(const T* from, T* to, int64_t count) {
  if constexpr (N > 1) {
    constexpr int half = N / 2;
    if (count & half) {
      __builtin_memcpy(to, from, half * sizeof(T));
      from += half, to += half;
    }
    copy_part<half>(from, to, count);
  }
}
// The first `count` lanes of a vector, all of them where count is larger; the others are 0.
template <class T>
inline Vec<T> load_part(const T* p, int64_t count) {
  if (count >= lanes<T>) return load(p);
  T buffer[lanes<T>] = {};
  copy_part<lanes<T>>(p, buffer, count);
  return load(buffer);
}
template <class T>
inline void store_part(T* p, Vec<T> v, int64_t count) {
  if (count >= lanes<T>) return store(p, v);
  T buffer[lanes<T>];
  store(buffer, v);
  copy_part<lanes<T>>(buffer, p, count);
}
// x in every lane. `x - 0` is x for every x, so that a compiler makes one load of it, where `0 + x` would be an
// addition: 0 + -0 is not -0.
template <class T>
inline Vec<T> broadcast(T x) {
  return x - Vec<T>{};
}
// Lane l is lane from[l] of (a, b), counted through: GCC has it for any constant `from`, Clang only for literals.
template <class T>
inline Vec<T> shuffle(Vec<T> a, Vec<T> b, IntVec<T> from) {
#if defined(__clang__)
  Vec<T> result{};
  for (int l = 0; l < lanes<T>; ++l) result[l] = from[l] < lanes<T> ? a[from[l]] : b[from[l] - lanes<T>];
  return result;
#else
  return __builtin_shuffle(a, b, from);
#endif
}

}  // namespace VFRNN_ISA
}  // namespace vfrnn
