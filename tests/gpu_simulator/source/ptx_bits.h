// PTX instructions: mov, logic, shifts, bits.

// mov: registers, special registers, packing and unpacking.
static void x_mov(Thread& t, const Instruction& i) {
  SET_RESULT(SOURCE_A);
}
static void x_mov32(Thread& t, const Instruction& i) {
  SET_RESULT(u32(SOURCE_A));
}
static void x_mov16(Thread& t, const Instruction& i) {
  SET_RESULT(u16(SOURCE_A));
}
static void x_sreg(Thread& t, const Instruction& i) {
  u32 v = 0;
  const auto* q = sim.request;
  switch (i.variant) {
    case 0:
      v = t.tid;
      break;
    case 1:
    case 2:
      v = 0;
      break;
    case 3:
    case 4:
    case 5:
      v = q->block[i.variant - 3];
      break;
    case 6:
    case 7:
    case 8:
      v = t.block->id[i.variant - 6];
      break;
    case 9:
    case 10:
    case 11:
      v = q->grid[i.variant - 9];
      break;
    case 12:
      v = t.lane;
      break;
    case 13:
      v = t.block->rank;
      break;
    case 14:
      v = t.tid / 32;
      break;
  }
  SET_RESULT(v);
}
static void x_pack32(Thread& t, const Instruction& i) {
  SET_RESULT(u32(u16(value_of(t, i.values[0]))) | u32(u16(value_of(t, i.values[1]))) << 16);
}
static void x_unpack32(Thread& t, const Instruction& i) {
  u64 a = SOURCE_A;
  t.registers[i.values[0].reg] = u16(a);
  t.registers[i.values[1].reg] = u16(a >> 16);
}
static void x_pack64(Thread& t, const Instruction& i) {
  SET_RESULT(u64(u32(value_of(t, i.values[0]))) | u64(u32(value_of(t, i.values[1]))) << 32);
}
static void x_unpack64(Thread& t, const Instruction& i) {
  u64 a = SOURCE_A;
  t.registers[i.values[0].reg] = u32(a);
  t.registers[i.values[1].reg] = u32(a >> 32);
}

// Logic and shifts: and, or, xor, not, shl, shr. A shift by more than the width leaves 0, or the sign.
#define BINARY(nm, expr)                                      \
  template <class T>                                          \
  static void nm(Thread& t, const Instruction& i) {           \
    T a = number_of<T>(SOURCE_A), b = number_of<T>(SOURCE_B); \
    (void)b;                                                  \
    SET_RESULT(bits_of<T>(T(expr)));                          \
  }
BINARY(x_and, a& b)
BINARY(x_or, a | b)
BINARY(x_xor, a ^ b)
BINARY(x_not, ~a)
template <class T>
static void x_shl(Thread& t, const Instruction& i) {
  u32 s = u32(SOURCE_B);
  SET_RESULT(s >= sizeof(T) * 8 ? 0 : bits_of<T>(T(T(SOURCE_A) << s)));
}
template <class T>
static void x_shr(Thread& t, const Instruction& i) {
  u32 s = u32(SOURCE_B);
  T a = T(SOURCE_A);
  if (s >= sizeof(T) * 8)
    SET_RESULT(bits_of<T>(a < 0 ? T(-1) : T(0)));
  else
    SET_RESULT(bits_of<T>(T(a >> s)));
}

// Bits: selp, bfi, bfe, prmt, shf, popc, clz, brev.
static void x_selp(Thread& t, const Instruction& i) {
  SET_RESULT((SOURCE_C & 1) ? SOURCE_A : SOURCE_B);
}
static void x_bfi(Thread& t, const Instruction& i) {
  u32 f = SOURCE_A, b = SOURCE_B;
  u32 pos = u32(SOURCE_C) & 255, len = u32(value_of(t, i.e)) & 255;
  u32 m = len >= 32 ? ~0u : ((1u << len) - 1);
  m = pos >= 32 ? 0 : m << pos;
  SET_RESULT((b & ~m) | ((pos >= 32 ? 0 : f << pos) & m));
}
template <class T>
static void x_bfe(Thread& t, const Instruction& i) {
  u32 pos = u32(SOURCE_B) & 255, len = u32(SOURCE_C) & 255;
  u64 a = u64(std::make_unsigned_t<T>(SOURCE_A));
  int msb = sizeof(T) * 8 - 1;
  u64 r = 0;
  bool sb = std::is_signed_v<T> && len ? (a >> std::min<int>(pos + len - 1, msb)) & 1 : 0;
  for (u32 k = 0; k <= u32(msb); ++k) {
    bool bit = (k < len && pos + k <= u32(msb)) ? (a >> (pos + k)) & 1 : sb;
    r |= u64(bit) << k;
  }
  SET_RESULT(r);
}
static void x_prmt(Thread& t, const Instruction& i) {
  u64 ab = u64(u32(SOURCE_A)) | u64(u32(SOURCE_B)) << 32;
  u32 s = SOURCE_C, r = 0;
  for (int k = 0; k < 4; ++k) {
    u32 q = s >> (4 * k) & 15;
    u8 by = ab >> (8 * (q & 7));
    if (q & 8) by = (by & 0x80) ? 0xff : 0;
    r |= u32(by) << (8 * k);
  }
  SET_RESULT(r);
}
static void x_shf(Thread& t, const Instruction& i) {
  u64 ab = u64(u32(SOURCE_A)) | u64(u32(SOURCE_B)) << 32;
  u32 s = u32(SOURCE_C);
  s = (i.variant & 1) ? (s & 31) : std::min(s, 32u);
  if (i.variant & 2)
    SET_RESULT(u32(ab >> s));
  else
    SET_RESULT(u32((ab << s) >> 32));
}
template <class T>
static void x_popc(Thread& t, const Instruction& i) {
  SET_RESULT(__builtin_popcountll(u64(T(SOURCE_A))));
}
template <class T>
static void x_clz(Thread& t, const Instruction& i) {
  T a = T(SOURCE_A);
  SET_RESULT(a ? __builtin_clzll(u64(a)) - (64 - 8 * sizeof(T)) : 8 * sizeof(T));
}
static void x_brev(Thread& t, const Instruction& i) {
  u32 a = SOURCE_A, r = 0;
  for (int k = 0; k < 32; ++k) r |= (a >> k & 1) << (31 - k);
  SET_RESULT(r);
}

bool PtxDecoder::decode_bits() {
  Execute& f = in.execute;
  if (opcode == "mov") {
    static const std::map<string, int> sr = {
        {"%tid.x", 0},     {"%tid.y", 1},     {"%tid.z", 2},   {"%ntid.x", 3},          {"%ntid.y", 4},
        {"%ntid.z", 5},    {"%ctaid.x", 6},   {"%ctaid.y", 7}, {"%ctaid.z", 8},         {"%nctaid.x", 9},
        {"%nctaid.y", 10}, {"%nctaid.z", 11}, {"%laneid", 12}, {"%cluster_ctarank", 13}};
    auto it = sr.find(args.at(1));
    if (it != sr.end()) {
      f = x_sreg;
      in.variant = it->second;
      in.d = op(args[0]);
    } else if (args[0][0] == '{') {
      in.values = vec(args[0]);
      in.a = op(args[1]);
      f = type_bytes(type) == 4 ? x_unpack32 : x_unpack64;
    } else if (args[1][0] == '{') {
      in.d = op(args[0]);
      in.values = vec(args[1]);
      f = type_bytes(type) == 4 ? x_pack32 : x_pack64;
    } else {
      in.d = op(args[0]);
      in.a = op(args[1]);
      f = type == "pred" ? x_mov : type_bytes(type) == 2 ? x_mov16 : type_bytes(type) == 4 ? x_mov32 : x_mov;
    }
  } else if (opcode == "and" || opcode == "or" || opcode == "xor") {
    take_operands();
    string t2 = type;
    if (type == "pred") {
      f = opcode == "and" ? (Execute)x_and<u8> : opcode == "or" ? (Execute)x_or<u8> : (Execute)x_xor<u8>;
    } else
      f = opcode == "and"  ? BY_INTEGER_TYPE(x_and, type)
          : opcode == "or" ? BY_INTEGER_TYPE(x_or, type)
                           : BY_INTEGER_TYPE(x_xor, type);
  } else if (opcode == "not") {
    take_operands();
    if (type == "pred") {
      in.b.imm = 1;
      in.b.value = 1;
      f = (Execute)x_xor<u8>;
    } else
      f = BY_INTEGER_TYPE(x_not, type);
  } else if (opcode == "shl") {
    take_operands();
    f = BY_INTEGER_TYPE(x_shl, type);
  } else if (opcode == "shr") {
    take_operands();
    f = BY_INTEGER_TYPE(x_shr, type);
  } else if (opcode == "selp") {
    take_operands();
    f = x_selp;
  } else if (opcode == "bfi") {
    take_operands();
    if (type != "b32") bad("bfi");
    f = x_bfi;
  } else if (opcode == "bfe") {
    take_operands();
    f = type == "s32"   ? (Execute)x_bfe<i32>
        : type == "u32" ? (Execute)x_bfe<u32>
        : type == "s64" ? (Execute)x_bfe<i64>
        : type == "u64" ? (Execute)x_bfe<u64>
                        : nullptr;
  } else if (opcode == "prmt") {
    take_operands();
    f = x_prmt;
    if (parts.size() != 2) bad("prmt");
  } else if (opcode == "shf") {
    take_operands();
    in.variant = (has("wrap") ? 1 : 0) | (parts[1] == "r" ? 2 : 0);
    f = x_shf;
  } else if (opcode == "popc") {
    take_operands();
    f = type == "b32" ? (Execute)x_popc<u32> : type == "b64" ? (Execute)x_popc<u64> : nullptr;
  } else if (opcode == "clz") {
    take_operands();
    f = type == "b32" ? (Execute)x_clz<u32> : type == "b64" ? (Execute)x_clz<u64> : nullptr;
  } else if (opcode == "brev") {
    take_operands();
    f = x_brev;
  } else
    return false;
  return true;
}
