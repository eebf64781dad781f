// Memory for numbers that do not outlive a call.
#pragma once

#include <cstdint>
#include <memory>

namespace vfrnn {

// Uninitialised numbers, aligned for vectors. Unlike a tensor it may be made inside a parallel region. It asks for
// plain memory and aligns by itself: glibc (2.36) does not find what was freed again for aligned requests of other
// sizes, so that a process that makes them for as long as it trains would grow.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count) : memory_(new char[sizeof(T) * count + alignment]) {
    const uintptr_t start = reinterpret_cast<uintptr_t>(memory_.get());
    p_ = reinterpret_cast<T*>((start + alignment - 1) / alignment * alignment);
  }
  T* get() const { return p_; }

 private:
  static constexpr uintptr_t alignment = 64;

  std::unique_ptr<char[]> memory_;
  T* p_;
};

}  // namespace vfrnn
