// Products of square matrices, and batches of them over the threads of the framework's pool.
#pragma once

#include <cstdint>

#include "common/matmul.h"
#include "common/scratch.h"
#include "common/team.h"
#include "common/tensors.h"

namespace vfrnn {

// n x n products, row-major.
template <class T>
class Products {
 public:
  // A matrix as an operand of a product, possibly transposed.
  struct Factor {
    const T* p;
    bool transposed = false;
  };
  Products(const Team& team, int64_t n) : team_(team), n_(n) {}
  // out = a b, which must not overlap out
  void set(T* out, Factor a, Factor b) const { matmul(team_, out, view(a), view(b), n_, n_, n_); }
  // out += a b
  void add(T* out, Factor a, Factor b) const { matmul(team_, out, view(a), view(b), n_, n_, n_, true); }

 private:
  Operand<T> view(Factor a) const { return a.transposed ? Operand<T>{a.p, 1, n_} : Operand<T>{a.p, n_, 1}; }

  const Team& team_;
  int64_t n_;
};

// Up to this size a matrix is a thread's alone; beyond it its products and passes are split.
inline constexpr int64_t small_matrix = 64;

// f(team, begin, end, scratch) over a batch of K matrices of size n, with memory for `count` numbers that a team
// shares: each thread takes matrices of its own, or all go through one matrix after the other where those are few and
// large. What f throws must not leave a parallel region.
template <class T, class F>
void for_batch(int64_t K, int64_t n, int64_t count, const F& f) {
  if (n <= small_matrix || K >= 4 * usable_threads()) {
    parallel_for(0, K, 1 + (int64_t(1) << 17) / (n * n * n), [&](int64_t begin, int64_t end) {
      const Scratch<T> scratch(count);
      f(Team(), begin, end, scratch.get());
    });
  } else {
    const Scratch<T> scratch(count);
    Team::run(Team::members_for(n * n * n), [&](const Team& team) { f(team, int64_t(0), K, scratch.get()); });
  }
}

}  // namespace vfrnn
