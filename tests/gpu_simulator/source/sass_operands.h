// SASS instructions of sm_90, as nvdisasm writes them: one function s_NAME per opcode. NVIDIA documents only their
// names ("CUDA Binary Utilities", "Hopper Instruction Set"); semantics here are inferred, from ptxas' output beside its
// PTX, and hold as far as the test suite passes on them. Shared memory starts at 0x400 of the shared window (its first
// KiB is the system's), kernel parameters at c[0x0][0x210].
//
// Registers: R0..R254 at 0, RZ 255, UR at 256, URZ 319, P at 320, PT 327, UP at 328, UPT 335; one 64-bit cell each, of
// which 32 bits count. A uniform register is held per thread: uniform instructions run in every thread.
struct SassOperand {
  u8 kind = 0; /*0 reg,1 imm,2 const*/
  bool neg = false, abs = false, inv = false;
  u8 half = 2;
  u32 idx = 0;
  u64 imm = 0;
  u8 bank = 0;
  u32 cidx = 255;
};
static const u32 RZ = 255, UR0 = 256, URZ = 319, P0_ = 320, PT_ = 327, UP0_ = 328, UPT_ = 335, DUM = 400, NREG = 408;
struct SassOperands {
  vector<SassOperand> destinations, sources;
  vector<SassOperand> predicates_out, predicates_in;
};
static vector<u8> constant_bank0;
static const u32 SWIN = 0x7fffff01;
struct SassKernel {
  vector<SassOperands> operands;
  vector<u8> bank2;
  std::map<u32, u32> at;
  vector<u32> addr;
  u32 local = 0;
};
static std::unordered_map<const Kernel*, std::shared_ptr<SassKernel>> decoded_sass;
static SassKernel* current_sass = nullptr;
#define SASS_OPERANDS const SassOperands& ops = current_sass->operands[t.pc]
static u32 constant_of(Thread& t, const SassOperand& o, int n = 4) {
  const vector<u8>& b = o.bank == 0 ? constant_bank0 : current_sass->bank2;
  u64 a = u32(o.imm + (o.cidx == 255 ? 0 : t.registers[o.cidx]));
  if ((o.bank != 0 && o.bank != 2) || a + n > b.size()) fault(&t, "constant bank");
  u32 v = 0;
  memcpy(&v, b.data() + a, n);
  return v;
}
static u32 raw_of(Thread& t, const SassOperand& o, int w = 0) {
  switch (o.kind) {
    case 0:
      return (o.idx == RZ || o.idx == URZ) ? 0 : u32(t.registers[o.idx + w]);
    case 1:
      return u32(o.imm >> (32 * w));
    default: {
      SassOperand c = o;
      c.imm += 4 * w;
      return constant_of(t, c);
    }
  }
}
static u32 int_of(Thread& t, const SassOperand& o) {
  u32 v = raw_of(t, o);
  if (o.inv) v = ~v;
  if (o.abs) v = std::abs(i32(v));
  if (o.neg) v = 0 - v;
  return v;
}
static u64 int64_of(Thread& t, const SassOperand& o) {
  u64 v = u64(raw_of(t, o)) | u64(raw_of(t, o, 1)) << 32;
  if (o.kind == 1) v = o.imm;
  if (o.inv) v = ~v;
  if (o.neg) v = 0 - v;
  return v;
}
static float float_of(Thread& t, const SassOperand& o) {
  u32 v = raw_of(t, o);
  if (o.abs) v &= 0x7fffffff;
  if (o.neg) v ^= 0x80000000;
  return bits_as<float>(v);
}
static double double_of(Thread& t, const SassOperand& o) {
  u64 v = o.kind == 1 ? o.imm : u64(raw_of(t, o)) | u64(raw_of(t, o, 1)) << 32;
  if (o.abs) v &= ~(1ull << 63);
  if (o.neg) v ^= 1ull << 63;
  return bits_as<double>(v);
}
static bool predicate_of(Thread& t, const SassOperand& o) {
  bool v = (o.idx == PT_ || o.idx == UPT_) ? true : (t.registers[o.idx] & 1);
  return v != o.inv;
}
static void set_register(Thread& t, const SassOperand& o, u32 v, int w = 0) {
  if (o.idx == RZ || o.idx == URZ) return;
  t.registers[o.idx + w] = v;
}
static void set_register64(Thread& t, const SassOperand& o, u64 v) {
  set_register(t, o, u32(v));
  set_register(t, o, u32(v >> 32), 1);
}
static void set_predicate(Thread& t, const SassOperand& o, bool v) {
  if (o.idx == PT_ || o.idx == UPT_) return;
  t.registers[o.idx] = v;
}
static void set_carries(Thread& t, const SassOperands& ops, u32 c) {
  if (ops.predicates_out.size() > 0) set_predicate(t, ops.predicates_out[0], c >= 1);
  if (ops.predicates_out.size() > 1) set_predicate(t, ops.predicates_out[1], c >= 2);
}
#define SASS(n) static void s_##n(Thread& t, [[maybe_unused]] const Instruction& i)
