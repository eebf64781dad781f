// How the CPU kernels of the recurrences store their arrays, for kernels and bindings.
//
// An array with a long row of `count` entries is cut into ceil(count / W) panels of W columns, each stored on its own
// as (rows, W), padded at the end of the last one; W, two vectors, is the kernels' panel_width. A panel is what a tile
// of registers reads with constant strides, and what stays in the first cache while the rows pass.
#pragma once

#include <stdint.h>

namespace vfrnn {

// Panels of `width` that hold `count` entries. Always inline: no copy of one instruction set serves another.
[[gnu::always_inline]] constexpr inline int64_t panels_of(int64_t count, int64_t width) {
  return (count + width - 1) / width;
}

// Rows of a user's tensor, T x B of them; entries of a row are adjacent.
template <class T>
struct Rows {
  T* p;
  int64_t step, sample;  // strides
};

}  // namespace vfrnn
