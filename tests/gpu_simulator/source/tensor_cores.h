// Products of tiles by a warp: d (16, 8) = c + a (16, K) b (K, 8), K = 16 of bf16 and f16, 8 of tf32, of which the
// upper 19 bits of a register count. Layouts: PTX ISA, "Matrix Fragments for mma.m16n8k8 / .m16n8k16".
//
// Products are exact and summed in double, then c is added and rounded once, to nearest (or toward zero,
// with VFRNN_SIMULATOR_TRUNCATE). The hardware truncates during the sum and in an order of its own, which PTX ISA
// leaves open ("mma": precision): results agree to a few units in the last place of float32, not bit by bit.
static bool truncate_sums = false;
static float accumulate(double c, double s) {
  double r = c + s;
  float f = float(r);
  if (truncate_sums && std::isfinite(f) && f != 0 && std::fabs((double)f) > std::fabs(r)) f = nextafterf(f, 0.f);
  return f;
}
enum MmaType : u32 { BF16, F16, TF32 };
// With g = lane / 4, q = lane % 4: a register of a holds rows g and g + 8 in turn, and of 16-bit numbers two columns.
template <class A, class B, class C, class Set>
static void multiply_fragments(MmaType type, const A& a_of, const B& b_of, const C& c_of, const Set& set) {
  const int K = type == TF32 ? 8 : 16;
  double a[16][16], b[16][8];
  const auto number = [&](u32 bits, int half) {
    if (type == TF32) return double(as_float(bits & 0xffffe000u));
    const u16 h = u16(half ? bits >> 16 : bits);
    return type == BF16 ? double(as_float(u32(h) << 16)) : double(half_to_float(h));
  };
  for (int l = 0; l < 32; ++l) {
    const int g = l >> 2, q = l & 3, per = type == TF32 ? 1 : 2;
    for (int k = 0; k < 4; ++k)
      for (int e = 0; e < per; ++e) a[k & 1 ? g + 8 : g][per * q + e + (k >= 2 ? K / 2 : 0)] = number(a_of(l, k), e);
    for (int k = 0; k < 2; ++k)
      for (int e = 0; e < per; ++e) b[per * q + e + (k ? K / 2 : 0)][g] = number(b_of(l, k), e);
  }
  float d[32][4];
  for (int l = 0; l < 32; ++l)
    for (int k = 0; k < 4; ++k) {
      const int row = (l >> 2) + (k >= 2 ? 8 : 0), column = (l & 3) * 2 + (k & 1);
      double sum = 0;
      for (int q = 0; q < K; ++q) sum += a[row][q] * b[q][column];
      d[l][k] = accumulate(c_of(l, k), sum);
    }
  for (int l = 0; l < 32; ++l)
    for (int k = 0; k < 4; ++k) set(l, k, d[l][k]);
}
