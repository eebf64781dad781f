// Launches: which threads run, and in which order. Blocks (clusters; all of a cooperative grid) one after the other. In
// a block every thread runs until it waits, in the order of its index, or (VFRNN_SIMULATOR_SEED) threads by chance for
// 1 to 64 instructions each. A thread that polls gives up its turn; when all poll, a store of st.async lands.
static std::map<string, PtxEntry> ptx_entries;
static std::unordered_map<string, std::shared_ptr<Kernel>> ptx_kernels, sass_kernels;
static void index_code() {
  if (!ptx_entries.empty()) return;
  for (auto& entry : std::filesystem::directory_iterator(code_folder()))
    if (entry.path().extension() == ".ptx") index_ptx(entry.path().string(), ptx_entries);
}
static Kernel* ptx_kernel(const string& name, const string& file = {}) {
  auto& known = ptx_kernels[file + ":" + name];
  if (known != nullptr) return known.get();
  std::map<string, PtxEntry> of_file;
  if (file.empty())
    index_code();
  else
    index_ptx(file, of_file);
  const auto& entries = file.empty() ? ptx_entries : of_file;
  const auto entry = entries.find(stable_name(name));
  const string where = file.empty() ? code_folder() : file;
  if (entry == entries.end()) throw Fault("there is no PTX of kernel " + name + " in " + where);
  known = read_ptx_kernel(entry->second);
  return known.get();
}
static Kernel* sass_kernel(const Kernel& ptx) {
  auto& known = sass_kernels[ptx.name];
  if (known == nullptr) known = read_sass_kernel(ptx.name, ptx.file.substr(0, ptx.file.rfind('.')) + ".sass");
  return known.get();
}
// A line of JSON: the launch, instructions of all threads, the most of one thread (with the cycles after which the
// scheduler may issue its next instruction, and the instructions that wait for a scoreboard: SASS), and of the first
// thread how often each opcode was issued.
static void write_log(const char* path, const Launch& r, u64 most, u64 stalls, u64 waits, double seconds) {
  std::map<string, u64> opcodes;
  for (size_t at = 0; at < sim.counts.size(); ++at) {
    if (sim.counts[at] == 0) continue;
    const string& text = sim.k->instructions[at].text;
    const string opcode = text[0] == '@' ? strip(text.substr(text.find_first_of(" \t"))) : text;
    opcodes[opcode.substr(0, opcode.find_first_of(" \t"))] += sim.counts[at];
  }
  std::ostringstream line;
  line << "{\"kernel\": \"" << r.name << "\", \"grid\": [" << r.grid[0] << ", " << r.grid[1] << ", " << r.grid[2]
       << "], \"threads\": " << r.block[0] << ", \"cluster\": " << r.cluster << ", \"shared\": " << r.shared
       << ", \"executed\": " << sim.executed << ", \"instructions\": " << most << ", \"stalls\": " << stalls
       << ", \"waits\": " << waits << ", \"seconds\": " << seconds << ", \"opcodes\": {";
  const char* separator = "";
  for (auto& [opcode, count] : opcodes) {
    line << separator << "\"" << opcode << "\": " << count;
    separator = ", ";
  }
  line << "}}\n";
  std::ofstream(path, std::ios::app) << line.str();
}

static void run_launch(const Launch& r) {
  Kernel* k = ptx_kernel(r.name, r.file);
  sim.request = &r;
  sim.params.assign(k->parameter_bytes + 16, 0);
  for (size_t q = 0; q < k->params.size(); ++q)
    memcpy(sim.params.data() + k->params[q].off, r.arguments[q], k->params[q].size);
  forget_bounds();
  launch_count++;
  const bool sass = setting("VFRNN_SIMULATOR_SASS") != nullptr;
  if (sass) {
    k = sass_kernel(*k);
    sass_begin(r, k);
  }
  sim.k = k;
  const char* seed = setting("VFRNN_SIMULATOR_SEED");
  sim.random_state = seed ? strtoull(seed, nullptr, 10) * 0x9e3779b97f4a7c15ull : 0;
  sim.late = setting("VFRNN_SIMULATOR_EARLY") == nullptr;
  sim.race = setting("VFRNN_SIMULATOR_RACE") != nullptr;
  truncate_sums = setting("VFRNN_SIMULATOR_TRUNCATE") != nullptr;
  sim.async_stores.clear();
  sim.mbarriers.clear();
  global_shadow.clear();
  cooperative_now = r.cooperative;
  race_seen.clear();
  sim.races.clear();
  sim.executed = 0;
  sim.counts.assign(k->instructions.size(), 0);
  const auto start = std::chrono::steady_clock::now();
  u64 most_executed = 0, most_stalls = 0, most_waits = 0;
  u32 threads = r.block[0];
  if (r.block[1] * r.block[2] != 1 || threads % 32) fault(nullptr, "unsupported block shape: only (32 k, 1, 1)");
  u32 cluster = r.cluster ? r.cluster : 1, grid = r.grid[0] * r.grid[1] * r.grid[2];
  if (r.grid[0] % cluster) fault(nullptr, "the grid is no multiple of the cluster");
  u32 together = r.cooperative ? grid : cluster;
  for (u32 first = 0; first < grid; first += together) {
    vector<std::unique_ptr<Block>> blocks;
    vector<std::unique_ptr<Cluster>> clusters;
    vector<Thread> th(size_t(together) * threads);
    vector<u64> regs;
    regs.assign(size_t(together) * threads * k->register_count, 0xdeadbeefdeadbeefull);
    if (sass)
      for (size_t z = 0; z < size_t(together) * threads; ++z) {
        u64* R = regs.data() + z * k->register_count;
        R[RZ] = 0;
        R[URZ] = 0;
        R[PT_] = 1;
        R[UPT_] = 1;
      }
    size_t ti = 0;
    for (u32 b = 0; b < together; ++b) {
      if (b % cluster == 0) clusters.push_back(std::make_unique<Cluster>());
      auto c = std::make_unique<Block>();
      c->storage.assign(r.shared + 1024, 0xff);
      c->shared = (u8*)(((u64)c->storage.data() + 127) / 128 * 128);
      c->bytes = r.shared;
      c->rank = b % cluster;
      u32 id = first + b;
      c->id[0] = id % r.grid[0];
      c->id[1] = id / r.grid[0] % r.grid[1];
      c->id[2] = id / r.grid[0] / r.grid[1];
      c->cluster = clusters.back().get();
      c->cluster->blocks.push_back(c.get());
      c->live = threads;
      c->cluster->live += threads;
      if (sim.race) c->shadow.resize(r.shared / 2 + 16);
      c->warps.resize(threads / 32);
      for (u32 t = 0; t < threads; ++t) {
        Thread& x = th[ti];
        x.registers = regs.data() + ti * k->register_count;
        x.k = k;
        x.block = c.get();
        x.warp = &c->warps[t / 32];
        x.tid = t;
        x.lane = t % 32;
        x.index_in_cluster = c->rank * threads + t;
        if (sim.race) {
          x.vector_clock.assign(size_t(cluster) * threads, 0);
          x.vector_clock[x.index_in_cluster] = 1;
        }
        x.warp->lanes.push_back(&x);
        x.warp->live++;
        ti++;
      }
      blocks.push_back(std::move(c));
    }
    size_t left = th.size();
    int spins = 0;
    vector<Thread*> run;
    run.reserve(th.size());
    while (left) {
      run.clear();
      for (auto& t : th)
        if (t.st == RUN) run.push_back(&t);
      if (run.empty()) {
        if (!sim.async_stores.empty()) {
          land_async_store();
          continue;
        }
        fault(&th[0], "deadlock: every thread waits");
      }
      bool allpoll = true;
      if (sim.random_state)
        for (size_t q = run.size(); q > 1; --q) std::swap(run[q - 1], run[next_random() % q]);
      for (auto* t : run) {
        if (t->st != RUN) {
          allpoll = false;
          continue;
        }
        t->polling = false;
        u64 quantum = sim.random_state ? 1 + next_random() % 64 : ~0ull;
        u64 n = 0;
        const bool counted = t == &th[0] && first == 0;
        const Instruction* I = k->instructions.data();
        while (t->st == RUN && !t->polling && n < quantum) {
          const Instruction& in = I[t->pc];
          n++;
          t->stall += in.stall;
          t->waits += in.wait;
          if (counted) sim.counts[t->pc]++;
          if (in.predicate >= 0 && ((t->registers[in.predicate] & 1) != 0) == in.predicate_negated) {
            t->pc++;
            continue;
          }
          u32 was = t->pc;
          in.execute(*t, in);
          if (t->st == RUN && (t->pc == was || in.jumps)) t->pc++;
        }
        sim.executed += n;
        t->count += n;
        if (!t->polling || n > 8) allpoll = false;
        if (t->st == DONE) left--;
        if (sim.random_state && !sim.async_stores.empty() && next_random() % 8 == 0) land_async_store();
      }
      if (allpoll) {
        if (!sim.async_stores.empty()) {
          land_async_store();
          spins = 0;
        } else if (++spins > 100000)
          fault(run[0], "livelock: every thread polls");
      } else
        spins = 0;
    }
    if (!sim.async_stores.empty()) fault(nullptr, "st.async under way after the end");
    for (auto& t : th) {
      most_executed = std::max(most_executed, t.count);
      most_stalls = std::max(most_stalls, t.stall);
      most_waits = std::max(most_waits, t.waits);
    }
  }
  if (const char* path = setting("VFRNN_SIMULATOR_LOG")) {
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    write_log(path, r, most_executed, most_stalls, most_waits, seconds);
  }
  if (!sim.races.empty()) throw Fault(sim.races);
}

string execute(const Launch& launch) {
  static std::mutex one;
  const std::lock_guard<std::mutex> guard(one);
  try {
    run_launch(launch);
  } catch (const std::exception& wrong) {
    return wrong.what();
  }
  return "";
}
int64_t launches() {
  return launch_count;
}
vector<u32> parameter_sizes(const string& name) {
  vector<u32> sizes;
  for (auto& parameter : ptx_kernel(name)->params) sizes.push_back(parameter.size);
  return sizes;
}
string unsupported() {
  string found;
  index_code();
  for (auto& [name, entry] : ptx_entries) {
    try {
      const Kernel* ptx = ptx_kernel(name);
      if (setting("VFRNN_SIMULATOR_SASS")) sass_kernel(*ptx);
    } catch (const std::exception& wrong) {
      found += string(wrong.what()) + "\n";
    }
  }
  return found;
}
void forget_code() {
  ptx_entries.clear();
  ptx_kernels.clear();
  sass_kernels.clear();
  decoded_sass.clear();
  sass_files.clear();
}
void allocated(void* p, size_t bytes) {
  allocations[u64(p)] = bytes;
  forget_bounds();
}
void freed(void* p) {
  allocations.erase(u64(p));
  forget_bounds();
}
