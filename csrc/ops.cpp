// Every schema of the library, and nothing else. Kernels are registered in csrc/<op>/cpu.cpp; forward and backward
// are joined by autograd in vfrnn_kernels/<op>/op.py, where the arguments are checked.
//
// Dimensions: K matrices of a batch, n hidden size, m cells of the mesh, d dimension of a cell's tangent space,
// T time steps, B samples, i input size.
//
// One convention for every backward: (gradients of the outputs, the forward's tensors, its results, its constants,
// needs) -> one gradient per tensor. Bit k of `needs` asks for the k-th gradient; one that is not asked for, or that
// belongs to an absent tensor, comes back with shape (0,).
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(vfrnn_kernels, m) {
  // S (K, n, n), dt (K,) -> Q (K, n, n) = exp(dt S); saved (K, L, n, n) is kept for the backward
  m.def("skew_expm(Tensor S, Tensor dt) -> (Tensor Q, Tensor saved)");
  m.def(
      "skew_expm_backward(Tensor grad_Q, Tensor S, Tensor dt, Tensor Q, Tensor saved, int needs)"
      " -> (Tensor grad_S, Tensor grad_dt)");

  // S (K, n, n), delta (K, n), dt (K,) -> M (K, n, n); Q (K, n, n) = exp(dt S / substeps) and saved for the backward
  m.def("strang_step(Tensor S, Tensor delta, Tensor dt, int substeps) -> (Tensor M, Tensor Q, Tensor saved)");
  m.def(
      "strang_step_backward(Tensor grad_M, Tensor S, Tensor delta, Tensor dt, Tensor M, Tensor Q, Tensor saved,"
      " int substeps, int needs) -> (Tensor grad_S, Tensor grad_delta, Tensor grad_dt)");

  // b (n,), w (m,), N (m, n), G (m, d, n), v (K, m, d) -> S (K, n, n), delta (K, n); without N and G the complete mesh
  m.def("field_generator(Tensor b, Tensor w, Tensor? N, Tensor? G, Tensor v) -> (Tensor S, Tensor delta)");
  m.def(
      "field_generator_backward(Tensor grad_S, Tensor grad_delta, Tensor b, Tensor w, Tensor? N, Tensor? G, Tensor v,"
      " Tensor S, Tensor delta, int needs)"
      " -> (Tensor grad_b, Tensor grad_w, Tensor grad_N, Tensor grad_G, Tensor grad_v)");

  // h (B, n), v (1, m, d) or (B, m, d), dt and divergence_scale (), substeps 0: planned from a bound -> h' (B, n), and
  // the number of substeps () for the backward
  m.def(
      "field_flow(Tensor h, Tensor v, Tensor b, Tensor w, Tensor N, Tensor G, Tensor dt, Tensor divergence_scale,"
      " bool volume_preserving, int order, int substeps) -> (Tensor moved, Tensor taken)");
  m.def(
      "field_flow_backward(Tensor grad_moved, Tensor h, Tensor v, Tensor b, Tensor w, Tensor N, Tensor G, Tensor dt,"
      " Tensor divergence_scale, Tensor moved, Tensor taken, bool volume_preserving, int order, int substeps,"
      " int needs)"
      " -> (Tensor grad_h, Tensor grad_v, Tensor grad_b, Tensor grad_w, Tensor grad_N, Tensor grad_G, Tensor grad_dt,"
      " Tensor grad_divergence_scale)");

  // x (T, B, i), U (n, i), c (n,), M (n, n), h0 (B, n), beta (n,) -> hs (T, B, n)
  m.def("recurrence(Tensor x, Tensor U, Tensor? c, Tensor M, Tensor h0, Tensor? beta, str activation) -> Tensor");
  // the same, into hs, which is contiguous
  m.def(
      "recurrence_into(Tensor(a!) hs, Tensor x, Tensor U, Tensor? c, Tensor M, Tensor h0, Tensor? beta,"
      " str activation) -> ()");
  m.def(
      "recurrence_backward(Tensor grad_hs, Tensor x, Tensor U, Tensor? c, Tensor M, Tensor h0, Tensor? beta, Tensor hs,"
      " str activation, int needs)"
      " -> (Tensor grad_x, Tensor grad_U, Tensor grad_c, Tensor grad_M, Tensor grad_h0, Tensor grad_beta)");

  // x (T, B, i), U (n, i), c (n,), v (m, d), V (m, d, i), the mesh b, w, N, G, h0 (B, n), beta (n,), dt and
  // divergence_scale (), substeps 0, and order 0 with it: planned from a bound -> hs (T, B, n), and substeps and order
  // (2,)
  m.def(
      "flow_recurrence(Tensor x, Tensor U, Tensor? c, Tensor v, Tensor V, Tensor b, Tensor w, Tensor N, Tensor G,"
      " Tensor h0, Tensor? beta, Tensor dt, Tensor divergence_scale, str activation, bool volume_preserving, int order,"
      " int substeps) -> (Tensor hs, Tensor taken)");
  m.def(
      "flow_recurrence_backward(Tensor grad_hs, Tensor x, Tensor U, Tensor? c, Tensor v, Tensor V, Tensor b, Tensor w,"
      " Tensor N, Tensor G, Tensor h0, Tensor? beta, Tensor dt, Tensor divergence_scale, Tensor hs, Tensor taken,"
      " str activation, bool volume_preserving, int order, int substeps, int needs)"
      " -> (Tensor grad_x, Tensor grad_U, Tensor grad_c, Tensor grad_v, Tensor grad_V, Tensor grad_b, Tensor grad_w,"
      " Tensor grad_N, Tensor grad_G, Tensor grad_h0, Tensor grad_beta, Tensor grad_dt, Tensor grad_divergence_scale)");

  // The chains of spectral_recurrence, which is put together in vfrnn_kernels/spectral_recurrence/chains.py. delta
  // (n,), dt (T, B), h0 (B, n), beta (n,), basis (2, p, n), omega (p,); hs (T, B, n): U x_t + c, replaced by h_t
  m.def(
      "spectral_recurrence_states(Tensor(a!) hs, Tensor? delta, Tensor dt, Tensor h0, Tensor? beta, Tensor basis,"
      " Tensor omega, str activation, int substeps) -> ()");
  // grad_hs (T, B, n) -> grad_z (T, B, n), of the pre-activations, and grad_h0 (B, n)
  m.def(
      "spectral_recurrence_grad_z(Tensor grad_hs, Tensor? delta, Tensor dt, Tensor basis, Tensor omega, Tensor hs,"
      " str activation, int substeps) -> (Tensor grad_z, Tensor grad_h0)");

  // What thin_skew_expm is put together from on the CPU, in vfrnn_kernels/thin_skew_expm/composed.py: B (K, m, k) = Q R
  // with Q (K, m, k), R (K, k, k) upper triangular, R^T R = B^T B and |Q| at most about 1, whatever the rank of B
  m.def("thin_factor(Tensor B) -> (Tensor Q, Tensor R)");
  // out (K, r, c) = a b, or += a b, for a (K, r, d), b (K, d, c), d at least 1; the rows of out are adjacent
  m.def("thin_product(Tensor(a!) out, Tensor a, Tensor b, bool accumulate) -> ()");

  // The instruction set the CPU kernels run with, as "avx2", and those they were compiled for, the least first.
  m.def("cpu_isa() -> str");
  m.def("cpu_isas() -> str[]");

  // Of the CUDA kernels: versions as 12080 for 12.8, the newest that the driver serves (0: there is no driver) and the
  // runtime's; and of a device its architecture as 90 for 9.0, that of the code it would run (0: there is none),
  // multiprocessors, bytes of shared memory that a block may ask for, blocks of the largest cluster. Both ask, and
  // raise with what the runtime answers.
  m.def("cuda_versions() -> int[]");
  m.def("cuda_device(int index) -> int[]");
}
