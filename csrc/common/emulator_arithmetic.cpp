// The arithmetic of emulator.h that a CPU lacks: products of tiles on tensor cores, and numbers of 16 bits.
#include "common/gpu.h"

namespace vfrnn::gpu {
namespace {

struct Operands {
  uint32_t a[4], b[2];
};
// d of this lane, with `number(register, half)` of an operand; k indices per register: (pairs) 2 for 16 bits, 1 for
// TF32.
template <int pairs, class Number>
void multiply(float (&d)[4], const Operands& mine, const Number& number) {
  const auto* all = reinterpret_cast<const Operands*>(emulator::exchange(&mine, sizeof(Operands)));
  const int g = lane() / 4, t = lane() % 4;
  for (int e = 0; e < 4; ++e) {
    const int column = 2 * t + (e & 1), high = e >> 1;
    double sum = 0;
    for (int part = 0; part < 2; ++part) {
      for (int q = 0; q < 4; ++q) {
        const uint32_t a = all[4 * g + q].a[high + 2 * part], b = all[4 * column + q].b[part];
        for (int half = 0; half < pairs; ++half) sum += double(number(a, half)) * double(number(b, half));
      }
    }
    d[e] = float(double(d[e]) + sum);
  }
}

}  // namespace

void mma_bf16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  multiply<2>(d, {{a0, a1, a2, a3}, {b0, b1}},
              [](uint32_t bits, int half) { return float_of_bf16(uint16_t(bits >> 16 * half)); });
}
void mma_f16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  multiply<2>(d, {{a0, a1, a2, a3}, {b0, b1}},
              [](uint32_t bits, int half) { return float_of_f16(uint16_t(bits >> 16 * half)); });
}
void mma_tf32(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  multiply<1>(d, {{a0, a1, a2, a3}, {b0, b1}}, [](uint32_t bits, int) { return float_of(bits & ~0x1fffu); });
}

uint32_t rounded_f16(float x) {
  const uint32_t sign = bits_of(x) >> 16 & 0x8000;
  const float magnitude = std::fabs(x);
  if (x != x) return 0x7fff;
  if (magnitude >= 65520.f) return sign | 0x7c00;
  int exponent;
  std::frexp(magnitude, &exponent);
  const int ulp = (exponent > -13 ? exponent : -13) - 11;  // of the last bit, subnormal below 2^-14
  const float rounded = std::nearbyint(std::ldexp(magnitude, -ulp));
  const float value = std::ldexp(rounded, ulp);
  if (value < 6.103515625e-05f) return sign | uint32_t(std::ldexp(value, 24));
  std::frexp(value, &exponent);
  return sign | uint32_t(exponent + 14) << 10 | (uint32_t(std::ldexp(value, 11 - exponent)) & 0x3ff);
}
float float_of_f16(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
  float value = exponent == 31  ? (fraction ? NAN : INFINITY)
                : exponent == 0 ? std::ldexp(float(fraction), -24)
                                : std::ldexp(float(fraction + 1024), exponent - 25);
  return bits & 0x8000 ? -value : value;
}

}  // namespace vfrnn::gpu
