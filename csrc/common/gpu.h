// What the CUDA kernels use of the device, and how they are launched. Kernels are written with these functions alone.
//
// Shared memory is `shared_memory()`, sized by the launch; __shared__ variables do not exist here. Names with a PTX
// counterpart say it in their comment.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common/host_device.h"

namespace vfrnn::gpu {

// How a kernel is launched. `cluster`: blocks (along x) that share a cluster; `cooperative`: all blocks of the grid run
// at the same time, as grid_sync needs; `shared`: bytes of dynamic shared memory.
struct Launch {
  uint32_t x, y, z, threads;
  int64_t shared;
  uint32_t cluster;
  bool cooperative;
  cudaStream_t stream;
};

// Lets a kernel have all the shared memory that a block may ask for, or clusters of more than 8 blocks: once on every
// device and for all of its launches, so that no host thread takes from another what it set (gpu.cu).
cudaError_t allow(const void* kernel, cudaFuncAttribute attribute);

template <class... Parameters, class... Arguments>
inline cudaError_t launch(const Launch& l, void (*kernel)(Parameters...), Arguments... arguments) {
  const auto* function = reinterpret_cast<const void*>(kernel);
  if (l.shared > 48 * 1024) {
    if (const cudaError_t error = allow(function, cudaFuncAttributeMaxDynamicSharedMemorySize)) return error;
  }
  if (l.cluster > 8) {
    if (const cudaError_t error = allow(function, cudaFuncAttributeNonPortableClusterSizeAllowed)) return error;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(l.x, l.y, l.z);
  config.blockDim = dim3(l.threads);
  config.dynamicSmemBytes = size_t(l.shared);
  config.stream = l.stream;
  cudaLaunchAttribute attributes[2];
  int count = 0;
  if (l.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count].val.clusterDim.x = l.cluster;
    attributes[count].val.clusterDim.y = attributes[count].val.clusterDim.z = 1;
    ++count;
  }
  if (l.cooperative) {
    attributes[count].id = cudaLaunchAttributeCooperative;
    attributes[count].val.cooperative = 1;
    ++count;
  }
  config.attrs = attributes;
  config.numAttrs = unsigned(count);
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

// ---- threads ----
VFRNN_DEVICE int lane() {
  return int(threadIdx.x & 31);
}
VFRNN_DEVICE int warp() {
  return int(threadIdx.x >> 5);
}
VFRNN_DEVICE unsigned char* shared_memory() {
  extern __shared__ __align__(128) unsigned char vfrnn_shared_memory[];
  return vfrnn_shared_memory;
}
VFRNN_DEVICE void sync_threads() {
  __syncthreads();
}
VFRNN_DEVICE void sync_warp() {
  __syncwarp();
}
// All 32 lanes of the warp take part.
VFRNN_DEVICE float shuffle_xor(float value, int mask) {
  return __shfl_xor_sync(~0u, value, mask);
}
VFRNN_DEVICE float shuffle(float value, int from) {
  return __shfl_sync(~0u, value, from);
}
VFRNN_DEVICE uint32_t shuffle(uint32_t value, int from) {
  return __shfl_sync(~0u, value, from);
}

// ---- numbers ----
VFRNN_DEVICE uint32_t bits_of(float x) {
  return __float_as_uint(x);
}
VFRNN_DEVICE float float_of(uint32_t bits) {
  return __uint_as_float(bits);
}
// x, of which the compiler does not know that it is always the same: what is computed from it stays where it is needed,
// and no loop keeps it in a register.
VFRNN_DEVICE int opaque(int x) {
  asm volatile("" : "+r"(x));
  return x;
}
// Round to nearest even; the low half of the result is the first argument.
VFRNN_DEVICE uint32_t pack_bf16(float low, float high) {
  uint32_t r;
  asm("{\n.reg .b16 l, h;\ncvt.rn.bf16.f32 l, %1;\ncvt.rn.bf16.f32 h, %2;\nmov.b32 %0, {l, h};\n}"
      : "=r"(r)
      : "f"(low), "f"(high));
  return r;
}
VFRNN_DEVICE uint32_t pack_f16(float low, float high) {
  uint32_t r;
  asm("{\n.reg .b16 l, h;\ncvt.rn.f16.f32 l, %1;\ncvt.rn.f16.f32 h, %2;\nmov.b32 %0, {l, h};\n}"
      : "=r"(r)
      : "f"(low), "f"(high));
  return r;
}
VFRNN_DEVICE float float_of_bf16(uint16_t bits) {
  return __uint_as_float(uint32_t(bits) << 16);
}
VFRNN_DEVICE float float_of_f16(uint16_t bits) {
  float r;
  asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(bits));
  return r;
}
// To the 11 significant bits of TF32, nearest, ties away from zero, as cvt.rna.tf32.f32; the result is a float, and
// where that would be infinite the largest finite one, so that x minus it is never inf - inf. Of a NaN some number: x
// minus it is a NaN, and the conversion's test for one would be half of its instructions. In a block that is volatile:
// it is cheaper to split a number again than to keep its two parts in registers over a loop.
VFRNN_DEVICE float round_tf32(float x) {
  float r;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 860
  asm volatile(
      "{\n.reg .f32 c;\n.reg .b32 b;\nmin.xorsign.abs.f32 c, %1, 0f7F7FE000;\nmov.b32 b, c;\n"
      "add.u32 b, b, 0x1000;\nand.b32 b, b, 0xFFFFE000;\nmov.b32 %0, b;\n}"
      : "=f"(r)
      : "f"(x));
#else
  asm volatile(
      "{\n.reg .f32 c;\n.reg .b32 b;\nmax.f32 c, %1, 0fFF7FE000;\nmin.f32 c, c, 0f7F7FE000;\nmov.b32 b, c;\n"
      "add.u32 b, b, 0x1000;\nand.b32 b, b, 0xFFFFE000;\nmov.b32 %0, b;\n}"
      : "=f"(r)
      : "f"(x));
#endif
  return r;
}
// The same in one conversion, for numbers whose rounding is finite.
VFRNN_DEVICE float round_bounded_tf32(float x) {
  uint32_t r;
  asm volatile("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
  return __uint_as_float(r);
}

// ---- memory ----
// Adds and returns what was there.
VFRNN_DEVICE uint32_t atomic_add(uint32_t* address, uint32_t value) {
  return atomicAdd(address, value);
}
VFRNN_DEVICE uint32_t load_acquire(const uint32_t* address) {
  uint32_t r;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(r) : "l"(address) : "memory");
  return r;
}
VFRNN_DEVICE void fence() {
  __threadfence();
}
VFRNN_DEVICE void pause() {
  __nanosleep(20);
}
VFRNN_DEVICE uint32_t shared_address(const void* p) {
  return uint32_t(__cvta_generic_to_shared(p));
}
// From global to shared memory without waiting (cp.async); `bytes` is 4, 8 or 16, both addresses multiples of it.
template <int bytes>
VFRNN_DEVICE void copy_async(void* shared, const void* global) {
  if constexpr (bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(shared_address(shared)), "l"(global), "n"(bytes)
                 : "memory");
  }
}
VFRNN_DEVICE void copy_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until at most `pending` of this thread's committed groups are under way.
template <int pending>
VFRNN_DEVICE void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// ---- matrices: d (16, 8) += a (16, k) b (k, 8), one per warp (mma.sync.aligned.m16n8k16 / k8) ----
// With g = lane / 4, t = lane % 4: d[0..3] are (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1). 16-bit: a[0..3] hold the
// pairs (g, 2t..), (g+8, 2t..), (g, 2t+8..), (g+8, 2t+8..), b[0..1] the pairs (2t.., g), (2t+8.., g). TF32, k = 8:
// a[0..3] are (g, t), (g+8, t), (g, t+4), (g+8, t+4), b[0..1] are (t, g), (t+4, g); the low 13 bits of a number are
// ignored.
VFRNN_DEVICE void mma_bf16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                           uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
VFRNN_DEVICE void mma_f16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
VFRNN_DEVICE void mma_tf32(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                           uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// ---- clusters and mbarriers (sm_90 and later; elsewhere the functions do nothing and no plan chooses them) ----
// An address in the shared memory of a block of the cluster; adding bytes to it is allowed.
using RemoteAddress = uint32_t;
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define VFRNN_CLUSTER_ASM(...) asm volatile(__VA_ARGS__)
#else
#define VFRNN_CLUSTER_ASM(...)
#endif
VFRNN_DEVICE int cluster_rank() {
  uint32_t r = 0;
  VFRNN_CLUSTER_ASM("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
  return int(r);
}
// All threads of all blocks of the cluster (barrier.cluster, release and acquire).
VFRNN_DEVICE void cluster_sync() {
  VFRNN_CLUSTER_ASM("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" :: : "memory");
}
// Where `p`, of this block's shared memory, lies in the block of that rank (mapa).
VFRNN_DEVICE RemoteAddress remote_address(const void* p, int rank) {
  uint32_t r = 0;
  VFRNN_CLUSTER_ASM("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(r) : "r"(shared_address(p)), "r"(rank));
  return r;
}
// By one thread; then mbarrier_fence_init and a cluster_sync before anybody uses it.
VFRNN_DEVICE void mbarrier_init(uint64_t* barrier, uint32_t arrivals) {
  VFRNN_CLUSTER_ASM("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
VFRNN_DEVICE void mbarrier_fence_init() {
  VFRNN_CLUSTER_ASM("fence.mbarrier_init.release.cluster;" :: : "memory");
}
// Arrives, and lets the phase end only after so many more bytes of store_async have landed.
VFRNN_DEVICE void mbarrier_arrive_expect(uint64_t* barrier, uint32_t bytes) {
  VFRNN_CLUSTER_ASM("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
                    "r"(bytes) : "memory");
}
// Until the phase of that parity has ended (mbarrier.try_wait); then this thread sees what was written to shared memory
// before. An acquire at the scope of the cluster would drop the first cache at every wait, though no global memory is
// exchanged: the fence is of shared memory alone, where the compiler has one (PTX 8.6).
#if __CUDACC_VER_MAJOR__ * 100 + __CUDACC_VER_MINOR__ >= 1208
#define VFRNN_TRY_WAIT "mbarrier.try_wait.parity.relaxed.cluster.shared::cta.b64"
#define VFRNN_FENCE_OF_SHARED_MEMORY "fence.acquire.sync_restrict::shared::cluster.cluster;\n"
#else
#define VFRNN_TRY_WAIT "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64"
#define VFRNN_FENCE_OF_SHARED_MEMORY ""
#endif
VFRNN_DEVICE void mbarrier_wait(uint64_t* barrier, uint32_t parity) {
  VFRNN_CLUSTER_ASM("{\n.reg .pred p;\nWAIT_%=:\n" VFRNN_TRY_WAIT
                    " p, [%0], %1;\n@!p bra WAIT_%=;\n" VFRNN_FENCE_OF_SHARED_MEMORY "}" ::"r"(shared_address(barrier)),
                    "r"(parity) : "memory");
}
// 16 bytes to a block of the cluster, counted by an mbarrier of the same block (st.async). Not to the own block.
VFRNN_DEVICE void store_async(RemoteAddress to, uint4 v, RemoteAddress barrier) {
  VFRNN_CLUSTER_ASM(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1,%2,%3,%4}, [%5];" ::"r"(to),
      "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w), "r"(barrier) : "memory");
}

// ---- built from the above ----
VFRNN_DEVICE uint16_t bf16_of(float x) {
  return uint16_t(pack_bf16(x, 0.f));
}
VFRNN_DEVICE uint16_t f16_of(float x) {
  return uint16_t(pack_f16(x, 0.f));
}
VFRNN_DEVICE float warp_sum(float x) {
#pragma unroll
  for (int mask = 16; mask > 0; mask >>= 1) x += shuffle_xor(x, mask);
  return x;
}
VFRNN_DEVICE float warp_max(float x) {
#pragma unroll
  for (int mask = 16; mask > 0; mask >>= 1) {
    const float other = shuffle_xor(x, mask);
    x = x > other ? x : other;
  }
  return x;
}
// What activations.h needs of numbers, float or double.
template <class T>
struct Math {
  using Number = T;
  using Scalar = T;  // of constants
  static VFRNN_DEVICE T tanh(T x) { return ::tanh(x); }
  static VFRNN_DEVICE T magnitude(T x) { return ::fabs(x); }
  // c - a b, rounded once: what a compiler makes of it may differ from one kernel to the next, and a sample's bits must
  // not depend on which of them it falls to.
  static VFRNN_DEVICE T minus_product(T c, T a, T b) { return ::fma(-a, b, c); }
  // sign(z) relu(x), where sign(0) = 0 and a NaN stays one.
  static VFRNN_DEVICE T sign_times_relu(T z, T x) { return z == 0 || x <= 0 ? T(0) : ::copysign(x, z); }
};
// All blocks of a cooperative launch. `counter` is 0 before the launch; `round` counts the calls, from 1.
VFRNN_DEVICE void grid_sync(uint32_t* counter, uint32_t round) {
  sync_threads();
  if (threadIdx.x == 0) {
    fence();
    atomic_add(counter, 1);
    const uint32_t all = round * gridDim.x * gridDim.y * gridDim.z;
    while (load_acquire(counter) < all) pause();
    fence();
  }
  sync_threads();
}

}  // namespace vfrnn::gpu
