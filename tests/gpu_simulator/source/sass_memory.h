// SASS instructions: constant banks, memory, asynchronous copies, atomics.

// Constant banks: 0 (launch and parameters), 2 (the section .nv.constant2 of the kernel).
SASS(ldc) {
  SASS_OPERANDS;
  int n = i.bytes;
  if (n == 8) {
    set_register(t, ops.destinations[0], constant_of(t, ops.sources[0]));
    SassOperand o = ops.sources[0];
    o.imm += 4;
    set_register(t, ops.destinations[0], constant_of(t, o), 1);
  } else {
    u32 v = constant_of(t, ops.sources[0], n);
    if (i.is_signed) v = n == 1 ? u32(i32(i8(v))) : u32(i32(i16(v)));
    set_register(t, ops.destinations[0], v);
  }
}

// Memory: LD, LDG, LDS, LDL, ST, STG, STS, STL. sources[0] is the base (may be RZ), sources[1] a uniform register, then
// the value; the offset is in the instruction; variant 1: a 64-bit base, 2: a 64-bit uniform register, bits 8 up: scale
// of the base.
static u64 address_of(Thread& t, const Instruction& i, const SassOperands& ops) {
  u64 a;
  if (i.variant & 1)
    a = u64(raw_of(t, ops.sources[0])) | u64(raw_of(t, ops.sources[0], 1)) << 32;
  else
    a = raw_of(t, ops.sources[0]) * (u64)(i.variant >> 8 ? i.variant >> 8 : 1);
  if (ops.sources[1].idx != URZ)
    a += (i.variant & 2) ? u64(raw_of(t, ops.sources[1])) | u64(raw_of(t, ops.sources[1], 1)) << 32
                         : u64(raw_of(t, ops.sources[1]));
  a += i64(i.offset);
  if (!(i.variant & 1) && !(i.variant & 2)) a = u32(a);
  return a;
}
static u32 shared_offset(Thread& t, u32 a) {
  if ((a >> 24) != u32(t.block->rank)) fault(&t, "shared address of another block in a plain access");
  a &= 0xffffff;
  if (a < 0x400) fault(&t, "shared address below the window");
  return a - 0x400;
}
static std::unordered_map<const Thread*, vector<u8>> locals;
static u8* resolve_sass(Thread& t, const Instruction& i, u64 a, int n, bool w) {
  if (i.space == SHARED) return resolve(t, SHARED, shared_offset(t, u32(a)), n, w);
  if (i.space == LOCAL) {
    auto& l = locals[&t];
    if (l.empty()) l.resize(4096);
    u32 o = u32(a) - 0x1000 + 2048;
    if (o + n > 4096 || o % n) fault(&t, "local");
    return l.data() + o;
  }
  if (i.space == GENERIC && (a >> 32) == SWIN) return resolve(t, SHARED, shared_offset(t, u32(a)), n, w);
  return resolve(t, GLOBAL, a, n, w);
}
SASS(ld) {
  SASS_OPERANDS;
  skip_race = false;
  u64 a = address_of(t, i, ops);
  u8* p = resolve_sass(t, i, a, i.bytes, false);
  if (i.bytes <= 4)
    set_register(t, ops.destinations[0], u32(load_bits(p, i.bytes, false)));
  else
    for (int k = 0; k < i.bytes / 4; ++k) {
      u32 v;
      memcpy(&v, p + 4 * k, 4);
      set_register(t, ops.destinations[0], v, k);
    }
}
SASS(st) {
  SASS_OPERANDS;
  skip_race = false;
  u64 a = address_of(t, i, ops);
  u8* p = resolve_sass(t, i, a, i.bytes, true);
  if (i.bytes <= 4) {
    u32 v = raw_of(t, ops.sources[2]);
    memcpy(p, &v, i.bytes);
  } else
    for (int k = 0; k < i.bytes / 4; ++k) {
      u32 v = raw_of(t, ops.sources[2], k);
      memcpy(p + 4 * k, &v, 4);
    }
}

// LDGSTS, DEPBAR: cp.async and its wait.
SASS(ldgsts) {
  SASS_OPERANDS;
  u32 to = shared_offset(t, u32(raw_of(t, ops.sources[0]) + i.offset));
  u64 from = (u64(raw_of(t, ops.sources[2])) | u64(raw_of(t, ops.sources[2], 1)) << 32) + i64(i32(i.variant));
  const Copy c{to, from, i.bytes, i.bytes};
  if (c.to % c.n || c.from % c.n) fault(&t, "LDGSTS misaligned");
  resolve(t, GLOBAL, from, i.bytes, false);
  if (sim.late)
    t.copies.push_back(c);
  else
    copy_now(t, c);
}
SASS(depbar) {
  SASS_OPERANDS;
  u64 n = ops.sources[0].imm;
  while (t.groups.size() > n) {
    for (auto& c : t.groups.front()) copy_now(t, c);
    t.groups.pop_front();
  }
}

// ATOMG.ADD, RED.ADD, 32 bits.
SASS(atomadd) {
  SASS_OPERANDS;
  u64 a = address_of(t, i, ops);
  u8* p = resolve_bounds(t, GLOBAL, a, 4, true);
  u32 o;
  memcpy(&o, p, 4);
  u32 n = o + raw_of(t, ops.sources[2]);
  memcpy(p, &n, 4);
  if (!ops.destinations.empty()) set_register(t, ops.destinations[0], o);
}

bool SassDecoder::decode_memory() {
  Execute& f = in.execute;
  if (opcode == "LDC" || opcode == "ULDC") {
    ops.destinations.push_back(parse(args[0]));
    ops.sources.push_back(parse(args[1]));
    in.bytes = size();
    in.is_signed = has("S8") || has("S16");
    f = s_ldc;
    if (in.bytes == 16) bad("ldc");
  } else if (opcode == "LDG" || opcode == "LD" || opcode == "LDS" || opcode == "LDL") {
    ops.destinations.push_back(parse(args[0]));
    addr(args.at(1));
    if (args.size() > 2) bad("ld");
    in.bytes = size();
    if (has("S8") || has("S16")) bad("signed");
    in.space = opcode == "LDG" ? GLOBAL : opcode == "LD" ? GENERIC : opcode == "LDS" ? SHARED : LOCAL;
    f = s_ld;
  } else if (opcode == "STG" || opcode == "ST" || opcode == "STS" || opcode == "STL") {
    addr(args.at(0));
    ops.sources.push_back(parse(args.at(1)));
    in.bytes = size();
    in.space = opcode == "STG" ? GLOBAL : opcode == "ST" ? GENERIC : opcode == "STS" ? SHARED : LOCAL;
    f = s_st;
  } else if (opcode == "LDGSTS") {
    addr(args[0]);
    if (ops.sources[1].idx != URZ) bad("ldgsts");
    i32 keep = in.offset;
    SassOperands z = ops;
    ops.sources.clear();
    in.variant = 0;
    addr(args[1]);
    SassOperand g = ops.sources[0];
    if (ops.sources[1].idx != URZ || !(in.variant & 1)) bad("ldgsts2");
    i32 goff = in.offset;
    ops.sources = {z.sources[0], z.sources[1], g};
    in.offset = keep;
    in.variant = u32(goff);
    in.bytes = size();
    f = s_ldgsts;
    if (args.size() > 2) bad("ldgsts3");
  } else if (opcode == "LDGDEPBAR") {
    f = x_cpcommit;
  } else if (opcode == "DEPBAR") {
    ops.sources.push_back(parse(args.at(1)));
    if (args[0] != "SB0") bad("sb");
    f = s_depbar;
  } else if (opcode == "ATOMG" || opcode == "RED" || opcode == "REDG") {
    if (!has("ADD") || has("F32")) bad("atom");
    size_t b = 0;
    if (opcode == "ATOMG") {
      b = 1;
      ops.destinations.push_back(parse(args[1]));
      b = 2;
    }
    addr(args[b]);
    ops.sources.push_back(parse(args[b + 1]));
    f = s_atomadd;
  } else
    return false;
  return true;
}
