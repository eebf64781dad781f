// Where threads meet, and what lands later: barriers of a block, a warp, a cluster; mbarriers; cp.async; st.async.
// Source: PTX ISA, "Parallel Synchronization and Communication Instructions" (bar, barrier.cluster, mbarrier, "Phase of
// the mbarrier object", "Tracking asynchronous operations"), "Data Movement: cp.async, st.async, mapa".
//
// A barrier opens when every thread that has not ended arrived. Lanes of a warp that wait at different instructions, a
// lane that ends while its warp waits, masks other than all 32 lanes: faults. Nothing runs any more: "deadlock".
// Barriers of a block and of a warp.
static void suspend(Thread& t) {
  t.st = BLOCK;
}
static void wake(vector<Thread*>& w) {
  for (auto* t : w) {
    t->st = RUN;
    t->pc++;
  }
  w.clear();
}
static void release_block_barrier(Block* c) {
  if (c->live > 0 && (int)c->waiting.size() == c->live) {
    c->epoch++;
    sync_all(c->waiting);
    wake(c->waiting);
  }
}
// warp-wide: collects all live lanes
static bool warp_collect(Thread& t) {
  auto& w = t.warp->waiting;
  if (!w.empty() && w[0]->pc != t.pc) fault(&t, "lanes of a warp wait at different .sync instructions");
  w.push_back(&t);
  suspend(t);
  return (int)w.size() == 32;
}
static void warp_release(Thread& t, bool order = false) {
  if (order) sync_all(t.warp->waiting);
  wake(t.warp->waiting);
}

// cp.async: performed when its thread waits for it (late, the default) or at once (VFRNN_SIMULATOR_EARLY): both are
// allowed, and a read between shows as a difference.
static void copy_now(Thread& t, const Copy& c) {
  u8* d = resolve(t, SHARED, c.to, c.n, true);
  if (c.valid > 0) memcpy(d, resolve(t, GLOBAL, c.from, c.valid, false), size_t(c.valid));
  memset(d + c.valid, 0, size_t(c.n - c.valid));
}

// Clusters and mbarriers. An address in shared::cluster is (rank + 1) << 24 | offset. Stores of st.async land one by
// one, in order or by chance (VFRNN_SIMULATOR_SEED), and complete bytes of the pending transaction count; a phase ends
// when no arrival and no byte is pending.
static Block* block_of_address(Thread* t, Block* own, u32 a, u32& off) {
  u32 r = a >> 24;
  off = a & 0xffffff;
  if (r == 0) return own;
  if (r - 1 >= own->cluster->blocks.size()) fault(t, "cluster address rank");
  return own->cluster->blocks[r - 1];
}
static Mbarrier& find_mbarrier(Thread* t, Block* c, u32 off) {
  auto it = sim.mbarriers.find({c, off});
  if (it == sim.mbarriers.end() || !it->second.inited) fault(t, "mbarrier is not initialised");
  return it->second;
}
static void complete_phase(Thread* t, Mbarrier& m) {
  if (m.pending < 0) fault(t, "mbarrier: too many arrivals");
  if (m.pending == 0 && m.tx == 0) {
    m.pending = m.arrivals;
    m.phase ^= 1;
    m.done = m.vector_clock;
  }
}
static void land_async_store() {
  size_t k = sim.random_state ? next_random() % sim.async_stores.size() : 0;
  AsyncStore s = sim.async_stores[k];
  sim.async_stores.erase(sim.async_stores.begin() + k);
  u32 o, bo;
  Block* c = block_of_address(nullptr, s.from, s.to, o);
  block_of_address(nullptr, s.from, s.bar, bo);
  if (o + 16 > c->bytes) fault(nullptr, "st.async: out of bounds");
  if (c->live == 0) fault(nullptr, "st.async into a block that has ended");
  memcpy(c->shared + o, s.v, 16);
  Mbarrier& m = find_mbarrier(nullptr, c, bo);
  if (sim.race) {
    race_shared(*s.th, c, s.vector_clock, s.index_in_cluster, o, 16, true);
    race_after_init(*s.th, c, s.vector_clock, bo);
    join(m.vector_clock, s.vector_clock);
  }
  m.tx -= 16;
  complete_phase(nullptr, m);
}
static void release_cluster_barrier(Cluster* c) {
  if (c->live > 0 && c->arrived == c->live && (int)c->waiting.size() == c->live) {
    for (auto* t : c->waiting) {
      t->arrived_at_cluster = false;
      t->block->epoch++;
    }
    c->arrived = 0;
    sync_all(c->waiting);
    wake(c->waiting);
  }
}
