// How functions are declared that nvcc compiles for a GPU: for it alone, or for the host too. No CUDA header.
#pragma once

#if defined(__CUDACC__)
#define VFRNN_DEVICE __device__ __forceinline__
#define VFRNN_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define VFRNN_DEVICE inline
#define VFRNN_HOST_DEVICE inline
#endif
