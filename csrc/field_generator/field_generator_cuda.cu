// CUDA kernels of field_generator.
