// Binding of the CUDA kernels of recurrence.
