// The functions of gpu.h on a machine without a GPU, for tests: every thread of a block (of a cluster, of a cooperative
// grid) is a fiber of one host thread, and what threads of a warp do together waits until all of them are there.
// Numbers are rounded as the device rounds them; mma sums in double before it rounds.
//
// It finds wrong indices, missing barriers (VFRNN_EMULATOR_SEED=k runs the threads in another order; shared memory is
// full of NaN at the start; asynchronous copies land as late as they may) and deadlocks (it ends the process with a
// message). It says nothing about speed, and global memory is not checked.
#pragma once

#include <math.h>  // nvcc declares its functions in the global namespace too

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define threadIdx (::vfrnn::gpu::emulator::here().thread)
#define blockIdx (::vfrnn::gpu::emulator::here().block)
#define blockDim (::vfrnn::gpu::emulator::here().block_size)
#define gridDim (::vfrnn::gpu::emulator::here().grid)

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
struct dim3 {
  uint32_t x = 1, y = 1, z = 1;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) {
  return {x, y, z, w};
}
inline float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}
inline float2 make_float2(float x, float y) {
  return {x, y};
}

namespace vfrnn::gpu {

struct Launch;
using RemoteAddress = uint64_t;

namespace emulator {

struct Place {
  dim3 thread, block, block_size, grid;
};
const Place& here();
unsigned char* shared_memory();
void sync_threads();
// The values that the 32 lanes bring, exchanged: all[k] is lane k's, `size` bytes each, valid until the next exchange.
const unsigned char* exchange(const void* mine, size_t size);
void yield();
int cluster_rank();
void cluster_sync();
RemoteAddress remote_address(const void* p, int rank);
void mbarrier_init(uint64_t* barrier, uint32_t arrivals);
void mbarrier_update(uint64_t* barrier, int arrivals, int bytes);
void mbarrier_wait(uint64_t* barrier, uint32_t parity);
void store_async(RemoteAddress to, const uint4& v, RemoteAddress barrier);
void copy_async(void* shared, const void* global, int bytes);
void copy_async_commit();
void copy_async_wait(int pending);
void launch(const Launch& l, const std::function<void()>& thread);
int64_t launches();  // so far

}  // namespace emulator

inline int lane() {
  return int(emulator::here().thread.x & 31);
}
inline int warp() {
  return int(emulator::here().thread.x >> 5);
}
inline unsigned char* shared_memory() {
  return emulator::shared_memory();
}
inline void sync_threads() {
  emulator::sync_threads();
}
inline void sync_warp() {
  emulator::exchange(nullptr, 0);
}
template <class T>
inline T value_of_lane(T value, int from) {
  T result;
  std::memcpy(&result, emulator::exchange(&value, sizeof(T)) + size_t(from) * sizeof(T), sizeof(T));
  return result;
}
inline float shuffle_xor(float value, int mask) {
  return value_of_lane(value, lane() ^ mask);
}
inline float shuffle(float value, int from) {
  return value_of_lane(value, from);
}
inline uint32_t shuffle(uint32_t value, int from) {
  return value_of_lane(value, from);
}

template <class To, class From>
inline To bit_copy(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}
inline uint32_t bits_of(float x) {
  return bit_copy<uint32_t>(x);
}
inline float float_of(uint32_t bits) {
  return bit_copy<float>(bits);
}
inline int opaque(int x) {
  return x;
}
inline uint32_t rounded_bf16(float x) {
  const uint32_t bits = bits_of(x);
  if (x != x) return 0x7fff;
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
inline uint32_t pack_bf16(float low, float high) {
  return rounded_bf16(low) | rounded_bf16(high) << 16;
}
uint32_t rounded_f16(float x);
inline uint32_t pack_f16(float low, float high) {
  return rounded_f16(low) | rounded_f16(high) << 16;
}
inline float float_of_bf16(uint16_t bits) {
  return float_of(uint32_t(bits) << 16);
}
float float_of_f16(uint16_t bits);
inline float round_tf32(float x) {
  const float largest = float_of(0x7f7fe000u);
  return float_of((bits_of(fminf(fmaxf(x, -largest), largest)) + 0x1000) & ~0x1fffu);
}

inline uint32_t atomic_add(uint32_t* address, uint32_t value) {
  const uint32_t before = *address;
  *address += value;
  return before;
}
inline uint32_t load_acquire(const uint32_t* address) {
  return *static_cast<const volatile uint32_t*>(address);
}
inline void fence() {}
inline void pause() {
  emulator::yield();
}
template <int bytes>
inline void copy_async(void* shared, const void* global) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16);
  emulator::copy_async(shared, global, bytes);
}
inline void copy_async_commit() {
  emulator::copy_async_commit();
}
template <int pending>
inline void copy_async_wait() {
  emulator::copy_async_wait(pending);
}

void mma_bf16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1);
void mma_f16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1);
void mma_tf32(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1);

inline int cluster_rank() {
  return emulator::cluster_rank();
}
inline void cluster_sync() {
  emulator::cluster_sync();
}
inline RemoteAddress remote_address(const void* p, int rank) {
  return emulator::remote_address(p, rank);
}
inline void mbarrier_init(uint64_t* barrier, uint32_t arrivals) {
  emulator::mbarrier_init(barrier, arrivals);
}
inline void mbarrier_fence_init() {}
inline void mbarrier_arrive(uint64_t* barrier) {
  emulator::mbarrier_update(barrier, 1, 0);
}
inline void mbarrier_arrive_expect(uint64_t* barrier, uint32_t bytes) {
  emulator::mbarrier_update(barrier, 1, int(bytes));
}
inline void mbarrier_wait(uint64_t* barrier, uint32_t parity) {
  emulator::mbarrier_wait(barrier, parity);
}
inline void store_async(RemoteAddress to, uint4 v, RemoteAddress barrier) {
  emulator::store_async(to, v, barrier);
}

template <class... Parameters, class... Arguments>
inline cudaError_t launch(const Launch& l, void (*kernel)(Parameters...), Arguments... arguments) {
  emulator::launch(l, [&] { kernel(static_cast<Parameters>(arguments)...); });
  return cudaSuccess;
}

}  // namespace vfrnn::gpu
