// flow_recurrence where few rows of x differ from each other, as symbols do: a step along each of those fields is a
// matrix, made once, with which all the samples go that meet it. Derivation: vfrnn_kernels/flow_recurrence/README.md.
//
// Samples are split over threads; at every step those of a thread are sorted by their fields. What the matrices get
// from a chunk of steps is one product for each field. No bit depends on the threads: an entry of a product is one
// chain over the nodes, or over the rows of a chunk in their order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "common/matmul.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "field_flow/problem.h"
#include "flow_recurrence/layer.h"
#include "flow_recurrence/plan.h"
#include "skew_expm/exponential.h"
#include "strang_step/steps.h"

namespace vfrnn {

template <class T>
class RepeatedFields {
 public:
  // The most matrices that take no more memory than the states of so many rows.
  static int64_t most(int64_t rows, int64_t n) { return rows / n; }
  // Whether matrices of so many fields cost less than the series of every row, forward and backward, in multiply-adds.
  static bool pays(const FlowProblem<T>& problem, int64_t fields, int64_t rows) {
    const double n = double(problem.n), term = 4 * n * double(problem.m);
    return 25.0 * double(fields) * n * n * n + 3.0 * double(rows) * n * n <
           3.0 * double(rows) * term * double(problem.order * problem.k);
  }

  RepeatedFields(const Layer<T>& layer, const FlowProblem<T>& problem, const DistinctRows& rows)
      : layer_(layer),
        problem_(problem),
        rows_(rows),
        n_(problem.n),
        nn_(problem.n * problem.n),
        count_(int64_t(rows.first.size())),
        panels_((n_ + kernel_.panel_width - 1) / kernel_.panel_width),
        at_once_(std::clamp<int64_t>((int64_t(1) << 21) / ((3 + saved_matrices<T>(n_)) * nn_), 1, count_)),
        generators_(problem),
        fields_(count_ * layer.cells),
        some_(problem, at_once_) {
    for (int64_t f = 0; f < count_; ++f) layer.field(rows.first[f], fields_.data() + f * layer.cells);
    require(all_finite(fields_.data(), count_ * layer.cells),
            "v + V x must be finite for every input x, got NaN or infinity");
  }

  void forward(T* states) {
    const std::vector<T> matrices = packed_matrices(false);
    for_samples([&](Sorted& sorted) {
      StopCheck stop(double(sorted.end - sorted.begin) * double(nn_));
      for (int64_t t = 0; t < layer_.steps && !stop.asked(); ++t) {
        const T* previous = t > 0 ? states + layer_.row(t - 1, 0) * n_ : layer_.h0;
        sorted.multiply(t, matrices.data(), previous, [&](int64_t s, const T* moved) {
          T* h = states + layer_.row(t, s) * n_;
          layer_.input(layer_.row(t, s), h);
          layer_.kernel.activate(layer_.activation, moved, layer_.c, layer_.beta, n_, h);
        });
      }
    });
  }

  // All gradients but that of x.
  void backward(const LayerGradients<T>& to, const T* grad_hs, const T* hs) {
    const std::vector<T> matrices = packed_matrices(true);
    const bool of_fields = to.v || to.V || to.b || to.w || to.N || to.G || to.dt || to.scale;
    const int64_t B = layer_.B, chunk = std::clamp<int64_t>((int64_t(1) << 18) / (B * n_), 1, layer_.steps);
    const Scratch<T> grad_z(chunk * B * n_);
    std::vector<T> carried(B * n_, T(0)), grad_M(of_fields ? count_ * nn_ : 0, T(0));
    for (int64_t last = layer_.steps; last > 0; last -= chunk) {
      const int64_t first = std::max<int64_t>(0, last - chunk);
      for_samples([&](Sorted& sorted) {
        StopCheck stop(double(sorted.end - sorted.begin) * double(nn_));
        for (int64_t t = last - 1; t >= first && !stop.asked(); --t) {
          T* of_step = grad_z.get() + layer_.row(t - first, 0) * n_;
          for (int64_t s = sorted.begin; s < sorted.end; ++s) {
            const int64_t at = layer_.row(t, s) * n_;
            layer_.kernel.derivative(layer_.activation, hs + at, grad_hs + at, carried.data() + s * n_, n_,
                                     of_step + s * n_);
          }
          sorted.multiply(t, matrices.data(), of_step,
                          [&](int64_t s, const T* row) { std::copy(row, row + n_, carried.data() + s * n_); });
        }
      });
      if (of_fields) add_products(first, last, grad_z.get(), hs, grad_M.data());
      layer_.add_gradients(to, first, last, grad_z.get(), hs);
    }
    if (to.h0) std::copy(carried.begin(), carried.end(), to.h0);
    if (of_fields) through_matrices(to, grad_M.data());
  }

 private:
  // The samples begin..end of a thread, sorted by the fields of a step.
  struct Sorted {
    const RepeatedFields& of;
    int64_t begin, end;
    std::vector<int64_t> order;
    Scratch<T> gathered, products;

    Sorted(const RepeatedFields& of, int64_t begin, int64_t end)
        : of(of),
          begin(begin),
          end(end),
          order(end - begin),
          gathered((end - begin) * of.n_),
          products((end - begin) * of.n_) {}

    // give(s, the row s of `from` (B, n) times the matrix of its field at step t)
    template <class F>
    void multiply(int64_t t, const T* matrices, const T* from, const F& give) {
      const int64_t n = of.n_;
      const int64_t* which = of.rows_.which.data() + of.layer_.row(t, 0);
      std::iota(order.begin(), order.end(), begin);
      std::sort(order.begin(), order.end(),
                [&](int64_t r, int64_t s) { return which[r] != which[s] ? which[r] < which[s] : r < s; });
      const int64_t count = end - begin;
      for (int64_t k = 0; k < count; ++k) std::copy_n(from + order[k] * n, n, gathered.get() + k * n);
      for (int64_t first = 0, last = 0; first < count; first = last) {
        while (last < count && which[order[last]] == which[order[first]]) ++last;
        of.times_matrix(matrices, which[order[first]], gathered.get() + first * n, last - first,
                        products.get() + first * n);
      }
      for (int64_t k = 0; k < count; ++k) give(order[k], products.get() + k * n);
    }
  };

  // A few fields at a time: their generators and matrices.
  struct Matrices {
    FlowFields<T> fields;
    Scratch<T> S, M, Q, saved;

    Matrices(const FlowProblem<T>& problem, int64_t most)
        : fields(problem, most),
          S(most * problem.n * problem.n),
          M(most * problem.n * problem.n),
          Q(most * problem.n * problem.n),
          saved(most * saved_matrices<T>(problem.n) * problem.n * problem.n) {}
  };

  template <class F>
  void for_samples(const F& f) const {
    parallel_for(0, layer_.B, 1 + 32768 / (layer_.steps * nn_ + 1), [&](int64_t begin, int64_t end) {
      Sorted sorted(*this, begin, end);
      f(sorted);
    });
  }

  // f(matrices, first, count) for all fields, a few at a time: as many as 2^21 numbers are of. Where those are all they
  // are made once.
  template <class F>
  void for_matrices(const F& f) {
    const std::vector<T> times(at_once_, problem_.dt);
    for (int64_t first = 0; first < count_; first += at_once_) {
      const int64_t count = std::min(at_once_, count_ - first);
      if (!all_made_) {
        some_.fields.load(fields_.data() + first * layer_.cells, count);
        for (int64_t k = 0; k < count; ++k) generators_.of(some_.fields.C(k), some_.S.get() + k * nn_);
        strang_steps<T>(some_.S.get(), some_.fields.delta(0), times.data(), problem_.k, count, n_, some_.M.get(),
                        some_.Q.get(), some_.saved.get());
      }
      f(some_, first, count);
    }
    all_made_ = at_once_ == count_;
  }

  int64_t packed_size() const { return panels_ * n_ * kernel_.panel_width; }
  // Each as the right factor of a product of rows: M^T, or M itself.
  std::vector<T> packed_matrices(bool itself) {
    std::vector<T> packed(count_ * packed_size());
    const int64_t W = kernel_.panel_width, row = itself ? n_ : 1, column = itself ? 1 : n_;
    for_matrices([&](const Matrices& some, int64_t first, int64_t count) {
      for (int64_t k = 0; k < count; ++k) {
        for (int64_t p = 0; p < panels_; ++p) {
          kernel_.pack(some.M.get() + k * nn_ + p * W * column, row, column, n_, std::min(W, n_ - p * W),
                       packed.data() + (first + k) * packed_size() + p * n_ * W);
        }
      }
    });
    return packed;
  }
  // out = x (rows, n) times the matrix of field f
  void times_matrix(const T* matrices, int64_t f, const T* x, int64_t rows, T* out) const {
    const int64_t W = kernel_.panel_width;
    const T* panels = matrices + f * packed_size();
    for (int64_t p = 0; p < panels_; ++p) {
      kernel_.multiply(out + p * W, n_, std::min(W, n_ - p * W), false, x, n_, 1, panels + p * n_ * W, rows, n_);
    }
  }

  // grad_M += sum over the rows of its field of grad_z h^T, h the state before the step
  void add_products(int64_t first, int64_t last, const T* grad_z, const T* hs, T* grad_M) const {
    const int64_t B = layer_.B, begin = first * B, count = (last - first) * B;
    std::vector<int64_t> order(count);
    std::iota(order.begin(), order.end(), begin);
    std::stable_sort(order.begin(), order.end(), [&](int64_t r, int64_t s) { return rows_.which[r] < rows_.which[s]; });
    const Scratch<T> z(count * n_), h(count * n_);
    parallel_for(0, count, 1 + 32768 / n_, [&](int64_t from, int64_t to) {
      for (int64_t k = from; k < to; ++k) {
        const int64_t row = order[k];
        std::copy_n(grad_z + (row - begin) * n_, n_, z.get() + k * n_);
        std::copy_n(row < B ? layer_.h0 + row * n_ : hs + (row - B) * n_, n_, h.get() + k * n_);
      }
    });
    for (int64_t from = 0, to = 0; from < count; from = to) {
      const int64_t f = rows_.which[order[from]];
      while (to < count && rows_.which[order[to]] == f) ++to;
      matmul<T>(grad_M + f * nn_, {z.get() + from * n_, 1, n_}, {h.get() + from * n_, n_, 1}, n_, to - from, n_, true);
    }
  }

  // From the matrices to what all fields are made of.
  void through_matrices(const LayerGradients<T>& to, const T* grad_M) {
    const int64_t m = problem_.m, cells = layer_.cells, i = layer_.i, mn = m * n_;
    Pieces<T> memory({n_, n_, mn, mn, cells});
    T *row = memory.take(n_), *grad_b = memory.take(n_), *X = memory.take(mn), *Y = memory.take(mn);
    T* grad_v = memory.take(cells);
    for_matrices([&](const Matrices& some, int64_t first, int64_t count) {
      const Scratch<T> all_S(count * nn_);
      std::vector<T> delta(count * n_), times(count, problem_.dt), grad_dt(count);
      strang_steps_gradient<T>(grad_M + first * nn_, some.S.get(), some.fields.delta(0), times.data(), some.M.get(),
                               some.Q.get(), some.saved.get(), problem_.k, count, n_, true, all_S.get(), delta.data(),
                               to.dt ? grad_dt.data() : nullptr);
      for (int64_t k = 0; k < count; ++k) {
        const T *grad_S = all_S.get() + k * nn_, *S = some.S.get() + k * nn_,
                *field = fields_.data() + (first + k) * cells;
        for (int64_t j = 0; j < n_; ++j) grad_b[j] = 2 * problem_.rows.dot(grad_S + j * n_, S + j * n_, n_);
        std::copy_n(delta.data() + k * n_, n_, row);
        const T grad_scale = problem_.divergence_gradients(some.fields.div(k), row, grad_b);
        if (to.dt) *to.dt += grad_dt[k];
        if (to.scale) *to.scale += grad_scale;
        if (to.b) problem_.rows.add(to.b, T(1), grad_b, n_);
        if (m == 0) continue;
        // <grad_S, S>: X = 2 N grad_S and, of N, -2 C grad_S
        std::fill(X, X + mn, T(0));
        matmul<T>(Y, {problem_.scaled_N.get(), n_, 1}, {grad_S, n_, 1}, m, n_, n_);
        for (int64_t c = 0; c < m; ++c) {
          problem_.rows.add(X + c * n_, T(1), row, n_);
          problem_.rows.add(X + c * n_, T(2), Y + c * n_, n_);
        }
        problem_.field_gradients(some.fields.C(k), field, X, to.w, grad_v, to.G);
        if (to.v) problem_.rows.add(to.v, T(1), grad_v, cells);
        const T* x = layer_.x + rows_.first[first + k] * i;
        for (int64_t l = 0; to.V && l < cells; ++l) problem_.rows.add(to.V + l * i, grad_v[l], x, i);
        if (!to.N) continue;
        matmul<T>(Y, {some.fields.C(k), n_, 1}, {grad_S, n_, 1}, m, n_, n_);
        problem_.rows.add(to.N, T(-2), Y, mn);
      }
    });
    for (int64_t c = 0; to.N && c < m; ++c) {
      problem_.rows.scale(to.N + c * n_, problem_.half_w[c], problem_.root.data(), n_);
    }
  }

  const MatmulKernels<T>& kernel_ = IsaTable<MatmulKernels<T>>::active();
  const Layer<T>& layer_;
  const FlowProblem<T>& problem_;
  const DistinctRows& rows_;
  int64_t n_, nn_, count_, panels_, at_once_;
  Generators<T> generators_;
  std::vector<T> fields_;  // (count, m, d)
  Matrices some_;
  bool all_made_ = false;
};

}  // namespace vfrnn
