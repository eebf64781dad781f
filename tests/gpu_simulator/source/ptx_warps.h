// PTX instructions of several threads: barriers, shfl, mma, mbarriers, clusters; and control flow.

// bar.sync 0.
static void x_bar(Thread& t, const Instruction&) {
  suspend(t);
  t.block->waiting.push_back(&t);
  for (auto* o : t.block->waiting)
    if (o->warp == t.warp && o->pc != t.pc) fault(&t, "bar.sync: lanes of a warp at different barriers");
  release_block_barrier(t.block);
}

// shfl.sync idx, bfly, up, down, with segments and the predicate.
static void x_shfl(Thread& t, const Instruction& i) {
  if (u32(value_of(t, i.e)) != ~0u) fault(&t, "shfl mask is not full");
  if (!warp_collect(t)) return;
  auto& lanes = t.warp->lanes;
  u64 in[32];
  for (int l = 0; l < 32; ++l) in[l] = value_of(*lanes[l], i.a);
  for (int l = 0; l < 32; ++l) {
    Thread& o = *lanes[l];
    u32 b = u32(value_of(o, i.b)) & 31, c = u32(value_of(o, i.c));
    u32 seg = (c >> 8) & 31, cv = c & 31;
    int maxl = (l & seg) | (cv & ~seg), minl = l & seg;
    int j;
    bool p;
    switch (i.variant) {
      case 0:
        j = (minl) | (b & ~seg);
        p = j <= maxl;
        break;
      case 1:
        j = l ^ b;
        p = j <= maxl;
        break;
      case 2:
        j = l - b;
        p = j >= maxl;
        break;
      default:
        j = l + b;
        p = j <= maxl;
    }
    if (!p) j = l;
    o.registers[i.d.reg] = u32(in[j]);
    if (i.d2.reg) o.registers[i.d2.reg] = p;
  }
  warp_release(t);
}

// bar.warp.sync.
static void x_warpsync(Thread& t, const Instruction& i) {
  if (u32(SOURCE_A) != ~0u) fault(&t, "bar.warp.sync mask is not full");
  if (warp_collect(t)) warp_release(t, true);
}

// mma.sync m16n8k8 tf32 and m16n8k16 bf16, f16 with float32 sums.
static void x_mma(Thread& t, const Instruction& i) {
  if (!warp_collect(t)) return;
  const auto& lanes = t.warp->lanes;
  multiply_fragments(
      MmaType(i.variant), [&](int l, int k) { return u32(value_of(*lanes[l], i.fragment_a[k])); },
      [&](int l, int k) { return u32(value_of(*lanes[l], i.fragment_b[k])); },
      [&](int l, int k) { return as_float(value_of(*lanes[l], i.values[k + 4])); },
      [&](int l, int k, float d) { lanes[l]->registers[i.values[k].reg] = float_bits(d); });
  warp_release(t);
}

// ldmatrix m8n8 of 16 bits, .x1, .x2, .x4: lanes 8 j to 8 j + 7 have the addresses of the rows of matrix j; lane l gets
// the numbers 2 (l % 4) and the next of row l / 4, or (.trans) those of column l / 4.
static void x_ldmatrix(Thread& t, const Instruction& i) {
  if (!warp_collect(t)) return;
  const auto& lanes = t.warp->lanes;
  u16 rows[32][8];
  for (int l = 0; l < 8 * i.count; ++l) {
    Thread& o = *lanes[l];
    memcpy(rows[l], resolve(o, SHARED, u32(value_of(o, i.a)) + u32(i.offset), 16, false), 16);
  }
  for (int l = 0; l < 32; ++l)
    for (int j = 0; j < i.count; ++j) {
      const int at = l / 4, pair = 2 * (l % 4);
      const u16 low = i.variant ? rows[8 * j + pair][at] : rows[8 * j + at][pair];
      const u16 high = i.variant ? rows[8 * j + pair + 1][at] : rows[8 * j + at][pair + 1];
      lanes[l]->registers[i.values[j].reg] = u32(low) | u32(high) << 16;
    }
  warp_release(t);
}

// mbarrier.init, .arrive(.expect_tx), .try_wait.parity (never suspends: a failed try ends the turn of the thread),
// st.async.
static void x_mbinit(Thread& t, const Instruction& i) {
  u32 a = SOURCE_A + i.offset;
  if (a % 8 || a + 8 > t.block->bytes) fault(&t, "mbarrier address");
  Mbarrier m{};
  m.pending = m.arrivals = (i32)SOURCE_B;
  m.inited = true;
  race(t, a, 8, true);
  sim.mbarriers[{t.block, a}] = m;
}
static void x_mbarrive(Thread& t, const Instruction& i) {
  Mbarrier& m = find_mbarrier(&t, t.block, u32(SOURCE_A + i.offset));
  race_after_init(t, t.block, t.vector_clock, u32(SOURCE_A + i.offset));
  if (i.variant) m.tx += (i32)SOURCE_B;
  if (sim.race) {
    join(m.vector_clock, t.vector_clock);
  }
  m.pending--;
  complete_phase(&t, m);
  if (sim.race) t.vector_clock[t.index_in_cluster]++;
}
static void x_mbtry(Thread& t, const Instruction& i) {
  Mbarrier& m = find_mbarrier(&t, t.block, u32(SOURCE_A + i.offset));
  race_after_init(t, t.block, t.vector_clock, u32(SOURCE_A + i.offset));
  bool done = m.phase != (u32(SOURCE_B) & 1);
  t.registers[i.d.reg] = done;
  if (!done)
    t.polling = true;
  else if (sim.race)
    join(t.vector_clock, m.done);
}
static void x_stasync(Thread& t, const Instruction& i) {
  AsyncStore s;
  s.to = u32(SOURCE_A + i.offset);
  s.bar = u32(SOURCE_B + i32(i.variant));
  if (s.to % 16) fault(&t, "st.async misaligned");
  if ((s.to >> 24) != (s.bar >> 24)) fault(&t, "st.async: barrier in another CTA");
  if (s.to >> 24 == 0) fault(&t, "st.async to a shared::cta address");
  for (int k = 0; k < 4; ++k) s.v[k] = value_of(t, i.values[k]);
  s.from = t.block;
  if (sim.race) {
    s.vector_clock = t.vector_clock;
    s.index_in_cluster = t.index_in_cluster;
    s.th = &t;
  }
  sim.async_stores.push_back(s);
  if (sim.race) t.vector_clock[t.index_in_cluster]++;
}

// mapa, barrier.cluster.arrive, .wait.
static void x_mapa(Thread& t, const Instruction& i) {
  u32 r = SOURCE_B;
  if (r >= t.block->cluster->blocks.size()) fault(&t, "mapa rank");
  SET_RESULT(u32(SOURCE_A) | (r + 1) << 24);
}
static void x_clarrive(Thread& t, const Instruction&) {
  if (t.arrived_at_cluster) fault(&t, "barrier.cluster.arrive twice");
  t.arrived_at_cluster = true;
  t.block->cluster->arrived++;
}
static void x_clwait(Thread& t, const Instruction&) {
  if (!t.arrived_at_cluster) fault(&t, "barrier.cluster.wait before arrive");
  suspend(t);
  t.block->cluster->waiting.push_back(&t);
  release_cluster_barrier(t.block->cluster);
}

// Control flow: bra, ret, exit, trap; nanosleep ends the turn of the thread; fences and membar do nothing.
static void x_bra(Thread& t, const Instruction& i) {
  t.pc = i.target - 1;
}
static void x_brx(Thread& t, const Instruction& i) {
  const u64 at = u32(SOURCE_A);
  if (at >= i.table.size()) fault(&t, "brx.idx beyond its targets");
  t.pc = i.table[at] - 1;
}
static void x_ret(Thread& t, const Instruction&) {
  if (!t.copies.empty() || !t.groups.empty()) {
    bool any = !t.copies.empty();
    for (auto& g : t.groups) any |= !g.empty();
    if (any) fault(&t, "a thread ended before its cp.async landed");
  }
  t.st = DONE;
  t.block->live--;
  t.warp->live--;
  t.block->cluster->live--;
  if (!t.warp->waiting.empty()) fault(&t, "a lane ended while others of its warp wait");
  release_block_barrier(t.block);
  release_cluster_barrier(t.block->cluster);
}
static void x_trap(Thread& t, const Instruction&) {
  fault(&t, "trap");
}
static void x_nop(Thread&, const Instruction&) {}
static void x_sleep(Thread& t, const Instruction&) {
  t.polling = true;
}

bool PtxDecoder::decode_warps() {
  Execute& f = in.execute;
  if (opcode == "bra") {
    f = x_bra;
    fix.push_back({(u32)k->instructions.size(), args.at(0)});
  } else if (opcode == "ret" || opcode == "exit") {
    f = x_ret;
  } else if (opcode == "trap") {
    f = x_trap;
  } else if (opcode == "bar" && parts[1] == "sync") {
    f = x_bar;
    if (args.size() != 1 || args[0] != "0") bad("a barrier other than 0");
  } else if (opcode == "bar" && parts[1] == "warp") {
    f = x_warpsync;
    in.a = op(args.at(0));
  } else if (opcode == "barrier" && parts[1] == "cluster") {
    f = parts[2] == "arrive" ? x_clarrive : x_clwait;
  } else if (opcode == "membar" || opcode == "fence") {
    f = x_nop;
  } else if (opcode == "nanosleep") {
    f = x_sleep;
  } else if (opcode == "shfl") {
    auto dd = split(args.at(0), '|');
    in.d = op(dd[0]);
    if (dd.size() > 1) in.d2 = op(dd[1]);
    in.a = op(args[1]);
    in.b = op(args[2]);
    in.c = op(args[3]);
    in.e = op(args[4]);
    in.variant = parts[2] == "idx" ? 0 : parts[2] == "bfly" ? 1 : parts[2] == "up" ? 2 : 3;
    f = x_shfl;
  } else if (opcode == "mma") {
    in.values = vec(args[0]);
    in.fragment_a = vec(args[1]);
    in.fragment_b = vec(args[2]);
    auto c = vec(args[3]);
    for (auto& q : c) in.values.push_back(q);
    if (has("tf32") && has("m16n8k8"))
      in.variant = TF32;
    else if (has("bf16") && has("m16n8k16"))
      in.variant = BF16;
    else if (has("f16") && has("m16n8k16"))
      in.variant = F16;
    else
      bad("mma");
    if (!has("row") || !has("col") || in.values.size() != 8 || in.fragment_a.size() != 4 || in.fragment_b.size() != 2)
      bad("mma form");
    f = x_mma;
  } else if (opcode == "mbarrier") {
    if (parts[1] == "init") {
      addr(args[0], in.a, in.offset);
      in.b = op(args[1]);
      f = x_mbinit;
    } else if (parts[1] == "arrive") {
      if (args[0] != "_") bad("mbarrier.arrive");
      addr(args[1], in.a, in.offset);
      if (has("expect_tx")) {
        in.variant = 1;
        in.b = op(args[2]);
      } else if (args.size() > 2)
        bad("count");
      f = x_mbarrive;
    } else if (parts[1] == "try_wait" && has("parity")) {
      in.d = op(args[0]);
      addr(args[1], in.a, in.offset);
      in.b = op(args[2]);
      f = x_mbtry;
    } else
      bad("mbarrier");
  } else if (opcode == "st" && has("async")) {
    addr(args[0], in.a, in.offset);
    in.values = vec(args[1]);
    i32 o2;
    addr(args[2], in.b, o2);
    in.variant = o2;
    f = x_stasync;
    if (in.values.size() != 4 || type != "b32") bad("st.async form");
  } else if (opcode == "ldmatrix") {
    in.values = vec(args.at(0));
    in.count = u8(in.values.size());
    addr(args.at(1), in.a, in.offset);
    in.variant = has("trans");
    if (!has("m8n8") || !has(in.count == 4 ? "x4" : in.count == 2 ? "x2" : "x1")) bad("ldmatrix");
    f = x_ldmatrix;
  } else if (opcode == "brx") {
    in.a = op(args.at(0));
    fix_tables.emplace_back(u32(k->instructions.size()), args.at(1));
    f = x_brx;
  } else if (opcode == "mapa") {
    take_operands();
    f = x_mapa;
  } else
    return false;
  return true;
}
