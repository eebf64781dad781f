// Memory: one sequentially consistent memory, with checks of every access.
//
// - alignment: to the size of the whole access (PTX ISA, "Operands: Addresses as Operands": naturally aligned).
// - bounds: shared memory of the launch, cudaMalloc, torch's tensors. Shared memory starts as 0xff bytes (NaN), so do
//   the registers as 0xdeadbeef: what was not written shows in results.
// - races (VFRNN_SIMULATOR_RACE), by vector clocks: an access that is not ordered after an earlier one to the same 2
// bytes, of
//   which one is a write. Clocks join at bar.sync, barrier.cluster, bar.warp.sync, an observed mbarrier phase; not at
//   shfl and mma, which order no memory (PTX ISA, "Memory Consistency Model": synchronizes-with). Global memory: also
//   between blocks of one launch, unless it is cooperative (blocks of one launch have no order); operations on an
//   mbarrier must be ordered after its initialisation; ld.acquire and atomics are left out, and so are fences: code
//   that orders by a flag in global memory needs eyes.
static std::set<string> race_seen;
struct GlobalShadow {
  u32 writer_cluster = ~0u;
  u32 writer = ~0u, writer_clock = 0;
  vector<std::array<u32, 3>> readers;
};
static std::unordered_map<u64, GlobalShadow> global_shadow;
static bool cooperative_now = false;
static void join(vector<u32>& a, const vector<u32>& b) {
  if (a.size() < b.size()) a.resize(b.size(), 0);
  for (size_t k = 0; k < b.size(); ++k)
    if (b[k] > a[k]) a[k] = b[k];
}
static void sync_all(vector<Thread*>& w) {
  if (!sim.race || w.empty()) return;
  vector<u32> j;
  for (auto* t : w) join(j, t->vector_clock);
  for (auto* t : w) {
    t->vector_clock = j;
    t->vector_clock[t->index_in_cluster]++;
  }
}
static void report_race(Thread& t, const char* what, u64 off, u32 a, u32 ac, u32 b) {
  const string key = t.k->name + ":" + std::to_string(t.k->instructions[t.pc].line) + what;
  if (!race_seen.insert(key).second) return;
  char numbers[120];
  snprintf(numbers, sizeof numbers, " at %lx against thread %u clock %u (known %u), ", (unsigned long)off, a, ac, b);
  sim.races += string("race: ") + what + numbers + place_of(t) + "\n";
}
static void race_shared(Thread& t, Block* c, const vector<u32>& vector_clock, u32 index_in_cluster, u64 off, int n,
                        bool write) {
  for (u64 w = off / 2; w < (off + n + 1) / 2; ++w) {
    auto& s = c->shadow[w];
    if (s.writer != ~0u && s.writer != index_in_cluster && s.writer_clock > vector_clock[s.writer])
      report_race(t, write ? "shared write after write" : "shared read after write", off, s.writer, s.writer_clock,
                  vector_clock[s.writer]);
    if (write) {
      for (auto& r : s.readers)
        if (r.first != index_in_cluster && r.second > vector_clock[r.first])
          report_race(t, "shared write after read", off, r.first, r.second, vector_clock[r.first]);
      s.writer = index_in_cluster;
      s.writer_clock = vector_clock[index_in_cluster];
      s.readers.clear();
    } else {
      bool f = false;
      for (auto& r : s.readers)
        if (r.first == index_in_cluster) {
          r.second = vector_clock[index_in_cluster];
          f = true;
        }
      if (!f) s.readers.push_back({index_in_cluster, vector_clock[index_in_cluster]});
    }
  }
}
static void race(Thread& t, u64 off, int n, bool write) {
  if (sim.race) race_shared(t, t.block, t.vector_clock, t.index_in_cluster, off, n, write);
}
static void race_after_init(Thread& t, Block* c, const vector<u32>& vector_clock, u64 off) {
  if (!sim.race) return;
  auto& s = c->shadow[off / 2];
  if (s.writer != ~0u && s.writer_clock > vector_clock[s.writer])
    report_race(t, "mbarrier used without knowing its initialisation", off, s.writer, s.writer_clock,
                vector_clock[s.writer]);
}
static void race_global(Thread& t, u64 addr, int n, bool write) {
  u32 cid = t.block->id[0] + t.block->id[1] * 65536u + t.block->id[2] * 16777216u;
  u32 clid = cid - u32(t.block->rank);
  for (u64 w = addr / 2; w < (addr + n + 1) / 2; ++w) {
    auto& s = global_shadow[w];
    if (s.writer != ~0u && !(s.writer_cluster == clid && s.writer == t.index_in_cluster)) {
      if (s.writer_cluster == clid) {
        if (s.writer_clock > t.vector_clock[s.writer])
          report_race(t, write ? "global write after write" : "global read after write", addr, s.writer, s.writer_clock,
                      t.vector_clock[s.writer]);
      } else if (!cooperative_now)
        report_race(t, "global access after a write by another block", addr, s.writer, s.writer_cluster, clid);
    }
    if (write) {
      for (auto& r : s.readers)
        if (r[0] == clid) {
          if (r[1] != t.index_in_cluster && r[2] > t.vector_clock[r[1]])
            report_race(t, "global write after read", addr, r[1], r[2], t.vector_clock[r[1]]);
        } else if (!cooperative_now)
          report_race(t, "global write after a read by another block", addr, r[1], r[0], clid);
      s.writer_cluster = clid;
      s.writer = t.index_in_cluster;
      s.writer_clock = t.vector_clock[t.index_in_cluster];
      s.readers.clear();
    } else {
      bool f = false;
      for (auto& r : s.readers)
        if (r[0] == clid && r[1] == t.index_in_cluster) {
          r[2] = t.vector_clock[t.index_in_cluster];
          f = true;
        }
      if (!f && s.readers.size() < 4096)
        s.readers.push_back({clid, t.index_in_cluster, t.vector_clock[t.index_in_cluster]});
    }
  }
}
static u8* resolve_bounds(Thread& t, int space, u64 addr, int n, bool write) {
  if (addr % n) fault(&t, "misaligned address");
  Block* c = t.block;
  if (space == SHARED) {
    if ((i64)addr + n > c->bytes) fault(&t, "shared address out of bounds");
    race(t, addr, n, write);
    return c->shared + addr;
  }
  if (space == GENERIC) {
    u64 s = (u64)c->shared;
    if (addr >= s && addr < s + c->bytes) {
      if (addr + n > s + c->bytes) fault(&t, "shared (generic) out of bounds");
      race(t, addr - s, n, write);
      return (u8*)addr;
    }
  }
  if (!(addr >= memo_begin && addr + n <= memo_end)) {
    u64 sb, sn;
    if (tensor_bounds() == nullptr) throw Fault("libtensor_bounds.so is not preloaded (tests/gpu_simulator/run.py)");
    if (tensor_bounds()(addr, &sb, &sn)) {
      if (addr + n > sb + sn) fault(&t, "global address out of bounds (tensor)");
      memo_begin = sb;
      memo_end = sb + sn;
      return (u8*)addr;
    }
    auto it = allocations.upper_bound(addr);
    if (it == allocations.begin()) fault(&t, "global address in no allocation");
    --it;
    if (addr + n > it->first + it->second) fault(&t, "global address out of bounds");
    memo_begin = it->first;
    memo_end = it->first + it->second;
  }
  return (u8*)addr;
}
static bool skip_race = false;
static u8* resolve(Thread& t, int space, u64 addr, int n, bool write) {
  u8* p = resolve_bounds(t, space, addr, n, write);
  if (sim.race && !skip_race && space != SHARED) {
    u64 sh = (u64)t.block->shared;
    if (!(addr >= sh && addr < sh + t.block->bytes)) race_global(t, addr, n, write);
  }
  return p;
}
static u64 load_bits(const u8* p, int sz, bool sgn) {
  switch (sz) {
    case 1: {
      u8 v = *p;
      return sgn ? u64(i64(i8(v))) : v;
    }
    case 2: {
      u16 v;
      memcpy(&v, p, 2);
      return sgn ? u64(i64(i16(v))) : v;
    }
    case 4: {
      u32 v;
      memcpy(&v, p, 4);
      return v;
    }
    default: {
      u64 v;
      memcpy(&v, p, 8);
      return v;
    }
  }
}
