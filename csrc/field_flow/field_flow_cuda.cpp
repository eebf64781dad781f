// Binding of the CUDA kernels of field_flow.
