// CUDA kernels of field_flow.
