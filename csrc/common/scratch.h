// Memory for numbers that do not outlive a call.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace vfrnn {

// Uninitialised numbers, aligned for vectors. Unlike a tensor it may be made inside a parallel region.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count) : p_(static_cast<T*>(::operator new(sizeof(T) * count, alignment))) {}
  T* get() const { return p_.get(); }

 private:
  static constexpr std::align_val_t alignment{64};
  struct Free {
    void operator()(T* p) const { ::operator delete(p, alignment); }
  };
  std::unique_ptr<T, Free> p_;
};

}  // namespace vfrnn
