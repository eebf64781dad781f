// PTX instructions: memory.

// Data movement: ld, st (.param, .shared, .global, generic; vectors). ld.acquire is a plain load that is no race.
static void x_ld(Thread& t, const Instruction& i) {
  u64 addr;
  skip_race = i.variant == ACQUIRE && i.space == GLOBAL;
  if (i.space == PARAM) {
    addr = u64(i.variant) + u64(i64(i.offset)) + (i.d.imm == BY_REGISTER ? SOURCE_A : 0);
    if (addr + i.bytes * i.count > sim.params.size()) fault(&t, "param bounds");
    for (int k = 0; k < i.count; ++k)
      t.registers[i.values[k].reg] = load_bits(sim.params.data() + addr + k * i.bytes, i.bytes, i.is_signed);
    return;
  }
  addr = SOURCE_A;
  if (i.space == SHARED) addr = u32(addr);
  addr += i64(i.offset);
  if (i.space == SHARED) addr = u32(addr);
  u8* p = resolve(t, i.space, addr, i.bytes * i.count, false);
  for (int k = 0; k < i.count; ++k) t.registers[i.values[k].reg] = load_bits(p + k * i.bytes, i.bytes, i.is_signed);
}
static void x_st(Thread& t, const Instruction& i) {
  skip_race = false;
  u64 addr = SOURCE_A;
  if (i.space == SHARED) addr = u32(addr);
  addr += i64(i.offset);
  if (i.space == SHARED) addr = u32(addr);
  u8* p = resolve(t, i.space, addr, i.bytes * i.count, true);
  for (int k = 0; k < i.count; ++k) {
    u64 v = value_of(t, i.values[k]);
    memcpy(p + k * i.bytes, &v, i.bytes);
  }
}

// cp.async, cp.async.commit_group, cp.async.wait_group.
static void x_cpasync(Thread& t, const Instruction& i) {
  const int valid = i.c.imm == NO_OPERAND ? i.bytes : int(u32(SOURCE_C));
  if (valid != 0 && valid != i.bytes) fault(&t, "cp.async of a part of its bytes");
  const Copy c{u32(u32(SOURCE_A) + u32(i.offset)), SOURCE_B + u64(i64(i32(i.variant))), i.bytes, valid};
  if (c.to % u64(c.n) || (valid && c.from % u64(c.n))) fault(&t, "cp.async misaligned");
  if (valid) resolve(t, GLOBAL, c.from, c.n, false);
  if (i64(c.to) + c.n > t.block->bytes) fault(&t, "cp.async out of shared");
  if (sim.late)
    t.copies.push_back(c);
  else
    copy_now(t, c);
}
static void x_cpcommit(Thread& t, const Instruction&) {
  t.groups.push_back(std::move(t.copies));
  t.copies.clear();
}
static void x_cpwait(Thread& t, const Instruction& i) {
  while (t.groups.size() > SOURCE_A) {
    for (auto& c : t.groups.front()) copy_now(t, c);
    t.groups.pop_front();
  }
}

// atom.add.u32, red.add.u32.
static void x_atomadd(Thread& t, const Instruction& i) {
  u8* q = resolve_bounds(t, i.space, SOURCE_A + i64(i.offset), 4, true);
  u32 o;
  memcpy(&o, q, 4);
  u32 n = o + u32(SOURCE_B);
  memcpy(q, &n, 4);
  if (i.d.reg) SET_RESULT(o);
}

// cvta(.to).shared; for other spaces it is a mov.
static void x_cvta_toshared(Thread& t, const Instruction& i) {
  SET_RESULT(SOURCE_A - (u64)t.block->shared);
}
static void x_cvta_shared(Thread& t, const Instruction& i) {
  SET_RESULT(SOURCE_A + (u64)t.block->shared);
}

bool PtxDecoder::decode_memory() {
  Execute& f = in.execute;
  if (opcode == "ld") {
    in.values = vec(args.at(0));
    in.count = in.values.size();
    in.bytes = type_bytes(type);
    in.is_signed = type[0] == 's';
    in.space = has("param") ? PARAM : has("shared") ? SHARED : has("global") ? GLOBAL : GENERIC;
    f = x_ld;
    if (in.bytes != 1 && in.bytes != 2 && in.bytes != 4 && in.bytes != 8) bad("unsupported type");
    if (in.space == PARAM) {
      string pn;
      Operand d;
      addr(args[1], d, in.offset, &pn);
      bool ok = false;
      for (auto& q : k->params)
        if (q.name == pn) {
          in.variant = q.off;
          ok = true;
        }
      if (!ok) {
        in.a = op(pn);
        in.d.imm = BY_REGISTER;
      }
    } else
      addr(args[1], in.a, in.offset);
    if (has("acquire")) in.variant = ACQUIRE;
    if (has("local") || has("const")) bad("space");
  } else if (opcode == "st") {
    in.values = vec(args.at(1));
    in.count = in.values.size();
    in.bytes = type_bytes(type);
    in.space = has("shared") ? SHARED : has("global") ? GLOBAL : GENERIC;
    f = x_st;
    if (in.bytes != 1 && in.bytes != 2 && in.bytes != 4 && in.bytes != 8) bad("unsupported type");
    addr(args[0], in.a, in.offset);
    if (has("local")) bad("space");
  } else if (opcode == "cp" && parts[1] == "async") {
    if (parts[2] == "commit_group")
      f = x_cpcommit;
    else if (parts[2] == "wait_group") {
      f = x_cpwait;
      in.a = op(args[0]);
    } else {
      i32 o2;
      addr(args[0], in.a, in.offset);
      addr(args[1], in.b, o2);
      in.variant = o2;
      in.bytes = u8(strtol(args.at(2).c_str(), nullptr, 0));
      if (args.size() > 3)
        in.c = op(args[3]);
      else
        in.c.imm = NO_OPERAND;
      if (parts[2] == "cg" && in.bytes != 16) bad("cg size");
      f = x_cpasync;
    }
  } else if (opcode == "cvta") {
    take_operands();
    f = has("to") ? (has("shared") ? x_cvta_toshared : x_mov) : (has("shared") ? x_cvta_shared : x_mov);
    if (has("local")) bad("cvta");
  } else if (opcode == "atom" || opcode == "red") {
    if (!has("add") || type != "u32") bad("atom");
    int b = 0;
    if (opcode == "atom") {
      in.d = op(args[0]);
      b = 1;
    }
    addr(args[b], in.a, in.offset);
    in.b = op(args[b + 1]);
    in.space = has("shared") ? SHARED : has("global") ? GLOBAL : GENERIC;
    f = x_atomadd;
  } else
    return false;
  return true;
}
