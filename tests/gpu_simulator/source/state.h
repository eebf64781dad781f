// State of a simulation: decoded instructions, threads, warps, blocks (Block), clusters, asynchronous copies and
// stores, mbarriers; settings, the log, faults. Terms of PTX ISA, "Programming Model" and "Parallel Synchronization".
//
// A fault ends the launch, and the op raises with what was wrong: kernel, block, thread, line of the code, instruction.
using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using i8 = int8_t;
using i16 = int16_t;
using i32 = int32_t;
using i64 = int64_t;
using std::string;
using std::vector;
struct Thread;
struct Instruction;
struct Kernel;
struct Block;
enum Space : u8 { GENERIC, GLOBAL, SHARED, PARAM, LOCAL };
static const u32 ACQUIRE = 77;    // variant of ld.acquire
static const u8 BY_REGISTER = 7;  // ld.param: the address is in a register
static const u8 NO_OPERAND = 6;
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};
enum ThreadState { RUN, BLOCK, DONE };
using Execute = void (*)(Thread&, const Instruction&);
struct Operand {
  u8 imm = 0;
  u32 reg = 0;
  u64 value = 0;
};
struct Instruction {  // one decoded instruction
  Execute execute = nullptr;
  Operand d, d2, a, b, c, e;  // destinations and sources, in the order of the PTX ISA
  i32 predicate = -1;
  bool predicate_negated = false;  // @p, @!p: -1 without
  bool jumps = false;
  u32 target = 0;                                     // of a branch: index of an instruction
  i32 offset = 0;                                     // of an address
  u8 count = 1, bytes = 0, space = 0, is_signed = 0;  // of ld/st: vector length, element size; Space
  u32 variant = 0;                                    // modifiers, as the instruction's own function reads them
  vector<Operand> values, fragment_a, fragment_b;     // vectors of ld/st/mov; of mma: d and c, a, b
  vector<u32> table;                                  // of brx.idx: indices of instructions
  string text;
  int line = 0;            // as it stands in the file
  u8 stall = 0, wait = 0;  // SASS: stall cycles of the control word, whether it waits for a scoreboard
};
struct Param {
  string name;
  u32 size, off;
};
struct Kernel {
  string name;
  vector<Param> params;
  u32 parameter_bytes = 0;
  u32 register_count = 0;
  vector<Instruction> instructions;
  string file;
};
struct Copy {
  u64 to, from;
  int n, valid;  // bytes to be written, and of these those that are read; the others become 0
};
struct Warp {
  vector<Thread*> lanes;
  int live = 0;
  vector<Thread*> waiting;
};
struct Cluster {
  int live = 0;
  int arrived = 0;
  vector<Thread*> waiting;
  vector<Block*> blocks;
};
struct Block {
  vector<u8> storage;
  u8* shared;
  i64 bytes;
  int rank;
  u32 id[3];
  vector<Warp> warps;
  int live = 0;
  vector<Thread*> waiting;
  Cluster* cluster;
  int epoch = 0;
  struct Shadow {
    u32 writer = ~0u, writer_clock = 0;
    vector<std::pair<u32, u32>> readers;  // thread, its clock
  };
  vector<Shadow> shadow;
};
struct Thread {
  vector<u32> vector_clock;
  u32 index_in_cluster = 0;
  u32 pc = 0;
  ThreadState st = RUN;
  u64* registers;
  Kernel* k;
  Block* block;
  Warp* warp;
  u32 tid;
  u32 lane;
  vector<Copy> copies;
  std::deque<vector<Copy>> groups;
  bool arrived_at_cluster = false;
  bool polling = false;
  u64 count = 0, stall = 0, waits = 0;
};
struct Mbarrier {
  vector<u32> vector_clock, done;
  i32 pending;
  i32 arrivals;
  i32 tx;
  u32 phase;
  bool inited;
};
struct AsyncStore {
  vector<u32> vector_clock;
  u32 index_in_cluster = 0;
  Thread* th = nullptr;
  u32 to, bar;
  u32 v[4];
  Block* from;
};
// As the environment has them, read at each launch: VFRNN_SIMULATOR_SASS=1 executes SASS and not PTX; _SEED=k runs
// threads in an order by chance, and lands asynchronous stores by chance; _RACE=1 looks for races; _EARLY=1 copies
// asynchronously at once and not when it is waited for; _TRUNCATE=1 rounds the sums of the tensor cores toward zero;
// _LOG=FILE gets a line of JSON for each launch.
static const char* setting(const char* name) {
  const char* value = getenv(name);
  return value != nullptr && *value != 0 && strcmp(value, "0") != 0 ? value : nullptr;
}
struct Simulation {
  const Launch* request;
  Kernel* k;
  vector<u8> params;
  u64 random_state = 0;
  vector<AsyncStore> async_stores;
  std::map<std::pair<Block*, u32>, Mbarrier> mbarriers;
  u64 executed = 0;
  bool late = true, race = false;
  vector<u64> counts;  // by instruction, of the first thread of the launch
  string races;        // what was found, a line each
} sim;
static std::map<u64, u64> allocations;  // base->size
static u64 memo_begin = 1, memo_end = 0;
using TensorBounds = int (*)(u64, u64*, u64*);
// Of the preloaded library (tensor_bounds.cpp), if it is there.
static TensorBounds tensor_bounds() {
  static const auto found = TensorBounds(dlsym(RTLD_DEFAULT, "tensor_bounds_find"));
  return found;
}
static int64_t launch_count = 0;
static u64 next_random() {
  sim.random_state ^= sim.random_state << 13;
  sim.random_state ^= sim.random_state >> 7;
  sim.random_state ^= sim.random_state << 17;
  return sim.random_state;
}
static string place_of(const Thread& t) {
  const Instruction& i = t.k->instructions[t.pc];
  const u32* id = t.block->id;
  return "kernel " + t.k->name + " block (" + std::to_string(id[0]) + "," + std::to_string(id[1]) + "," +
         std::to_string(id[2]) + ") thread " + std::to_string(t.tid) + " line " + std::to_string(i.line) + ": " +
         i.text;
}
[[noreturn]] static void fault(const Thread* t, const string& what) {
  throw Fault(t == nullptr ? what : what + ", " + place_of(*t));
}
static void forget_bounds() {
  memo_begin = 1;
  memo_end = 0;
}
