// The scheduler behind emulator.h, and what threads do together.
#include "common/emulator.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "common/gpu.h"

namespace vfrnn::gpu::emulator {
namespace {

constexpr size_t stack_bytes = 256 << 10, guard_bytes = 128;
constexpr int warp_size = 32, most_bytes_per_lane = 64;
constexpr unsigned char guard_value = 0xa5;

[[noreturn]] void fail(const char* message) {
  std::fprintf(stderr, "emulated CUDA kernel: %s\n", message);
  std::abort();
}

struct Copy {
  void* to;
  const void* from;
  int bytes;
};
struct Fiber;
// Threads that wait for each other: of a block, of a warp, of a cluster.
struct Meeting {
  int members = 0, arrived = 0;
  std::vector<Fiber*> waiting;
};
struct Warp {
  Meeting meeting;
  alignas(16) unsigned char brought[warp_size * most_bytes_per_lane], given[warp_size * most_bytes_per_lane];
};
struct Block;
struct Fiber {
  Place place;
  Block* block;
  Warp* warp;
  jmp_buf state;
  ucontext_t start;
  void* stack;
  bool started = false, finished = false;
  std::vector<Copy> copies;  // of the group that is not committed yet
  std::deque<std::vector<Copy>> groups;
  uint64_t* barrier = nullptr;  // an mbarrier it waits for, and the parity
  uint32_t parity = 0;
};
struct Block {
  std::vector<unsigned char> memory;
  unsigned char* shared;
  int64_t shared_bytes;
  int rank;
  Meeting meeting;
  Meeting* cluster;
  std::vector<Block*>* peers;
  std::vector<std::unique_ptr<Warp>> warps;
};
struct Barrier {  // in the 8 bytes of an mbarrier
  int16_t pending, arrivals;
  int32_t bytes : 31;  // expected and not landed yet; below 0 while bytes land before they are expected
  uint32_t phase : 1;
};
static_assert(sizeof(Barrier) == 8);
struct Store {
  RemoteAddress to, barrier;
  uint4 v;
};

struct Scheduler {
  Fiber* current = nullptr;
  jmp_buf state;
  std::deque<Fiber*> ready;
  std::vector<Fiber*> polling;  // at an mbarrier
  std::vector<Store> stores;    // under way between blocks
  uint64_t random = 0;
  const std::function<void()>* thread = nullptr;
  std::vector<void*> stacks;
  int64_t launches = 0;
} s;
std::mutex one_launch;

uint64_t next_random() {
  s.random ^= s.random << 13, s.random ^= s.random >> 7, s.random ^= s.random << 17;
  return s.random;
}

void enter() {
  (*s.thread)();
  if (!s.current->copies.empty() || !s.current->groups.empty()) fail("a thread ended before its copies landed");
  s.current->finished = true;
  _longjmp(s.state, 1);
}

// Back to the scheduler; returns when the fiber runs again.
__attribute__((noinline)) void leave() {
  Fiber* self = s.current;
  if (_setjmp(self->state) == 0) _longjmp(s.state, 1);
}

__attribute__((noinline)) void run(Fiber* fiber) {
  s.current = fiber;
  if (_setjmp(s.state) == 0) {
    if (!fiber->started) {
      fiber->started = true;
      setcontext(&fiber->start);
    }
    _longjmp(fiber->state, 1);
  }
}

void release(Meeting& meeting) {
  for (Fiber* fiber : meeting.waiting) s.ready.push_back(fiber);
  meeting.waiting.clear();
  meeting.arrived = 0;
}
void meet(Meeting& meeting) {
  ++meeting.arrived;
  if (meeting.arrived == meeting.members) {
    release(meeting);
    if (s.random == 0) return;
    s.ready.push_back(s.current);  // in another order the last to come need not be the first to go on
  } else {
    meeting.waiting.push_back(s.current);
  }
  leave();
}
void quit(Meeting& meeting) {
  --meeting.members;
  if (meeting.members > 0 && meeting.arrived == meeting.members) release(meeting);
}

Barrier& barrier_at(uint64_t* p) {
  return *reinterpret_cast<Barrier*>(p);
}
void complete(Barrier& b) {
  if (b.pending < 0) fail("an mbarrier got more arrivals than its phase has");
  if (b.pending == 0 && b.bytes < 0) fail("an mbarrier got more bytes than were expected");
  if (b.pending == 0 && b.bytes == 0) b.pending = b.arrivals, b.phase ^= 1;
}
void* local(RemoteAddress address, Block* of) {
  const size_t rank = size_t(address >> 32), offset = size_t(address & 0xffffffff);
  if (rank >= of->peers->size()) fail("an address of a block outside the cluster");
  Block* block = (*of->peers)[rank];
  if (offset + 8 > size_t(block->shared_bytes)) fail("an address outside of shared memory");
  return block->shared + offset;
}
// Lands the oldest asynchronous store, or, in a random order, any.
void land(Block* of) {
  const size_t k = s.random == 0 ? 0 : next_random() % s.stores.size();
  const Store store = s.stores[k];
  s.stores.erase(s.stores.begin() + ptrdiff_t(k));
  std::memcpy(local(store.to, of), &store.v, 16);
  Barrier& b = barrier_at(static_cast<uint64_t*>(local(store.barrier, of)));
  b.bytes -= 16;
  complete(b);
}

// Runs the fibers of blocks that live at the same time until all are done.
void run_all(std::vector<std::unique_ptr<Fiber>>& fibers, std::vector<std::unique_ptr<Block>>& blocks) {
  size_t done = 0;
  while (done < fibers.size()) {
    for (size_t k = 0; k < s.polling.size();) {
      Fiber* fiber = s.polling[k];
      if (barrier_at(fiber->barrier).phase != fiber->parity) {
        s.ready.push_back(fiber);
        s.polling.erase(s.polling.begin() + ptrdiff_t(k));
      } else {
        ++k;
      }
    }
    if (s.ready.empty()) {
      if (s.stores.empty()) fail("deadlock: every thread waits");
      land(blocks[0].get());
      continue;
    }
    if (s.random != 0 && !s.stores.empty() && next_random() % 4 == 0) land(blocks[0].get());
    size_t k = 0;
    if (s.random != 0) k = next_random() % s.ready.size();
    Fiber* fiber = s.ready[k];
    s.ready.erase(s.ready.begin() + ptrdiff_t(k));
    run(fiber);
    if (fiber->finished) {
      ++done;
      quit(fiber->block->meeting), quit(fiber->warp->meeting), quit(*fiber->block->cluster);
    }
  }
  if (!s.stores.empty()) fail("a block ended before the stores to it had landed");
  for (const auto& block : blocks) {
    for (size_t k = 0; k < guard_bytes; ++k) {
      if (block->shared[block->shared_bytes + int64_t(k)] != guard_value) fail("write beyond the shared memory");
    }
  }
}

}  // namespace

const Place& here() {
  return s.current->place;
}
unsigned char* shared_memory() {
  return s.current->block->shared;
}
void sync_threads() {
  meet(s.current->block->meeting);
}
void yield() {
  s.ready.push_back(s.current);
  leave();
}
const unsigned char* exchange(const void* mine, size_t size) {
  if (size > most_bytes_per_lane) fail("exchange of more than 64 bytes per lane");
  Warp& warp = *s.current->warp;
  if (warp.meeting.members != warp_size) fail("a warp without all of its lanes exchanges values");
  if (size != 0) std::memcpy(warp.brought + (s.current->place.thread.x % warp_size) * size, mine, size);
  // The last to come publishes, before it releases the others.
  if (warp.meeting.arrived == warp_size - 1) std::memcpy(warp.given, warp.brought, warp_size * size);
  meet(warp.meeting);
  return warp.given;
}
int cluster_rank() {
  return s.current->block->rank;
}
void cluster_sync() {
  meet(*s.current->block->cluster);
}
RemoteAddress remote_address(const void* p, int rank) {
  const ptrdiff_t offset = static_cast<const unsigned char*>(p) - s.current->block->shared;
  return RemoteAddress(rank) << 32 | RemoteAddress(offset);
}
void mbarrier_init(uint64_t* barrier, uint32_t arrivals) {
  barrier_at(barrier) = Barrier{int16_t(arrivals), int16_t(arrivals), 0, 0};
}
void mbarrier_update(uint64_t* barrier, int arrivals, int bytes) {
  Barrier& b = barrier_at(barrier);
  b.pending = int16_t(b.pending - arrivals);
  b.bytes += bytes;
  complete(b);
}
void mbarrier_wait(uint64_t* barrier, uint32_t parity) {
  if (barrier_at(barrier).phase != parity) return;
  s.current->barrier = barrier, s.current->parity = parity;
  s.polling.push_back(s.current);
  leave();
}
void store_async(RemoteAddress to, const uint4& v, RemoteAddress barrier) {
  if (to % 16 != 0 || barrier % 8 != 0) fail("store_async to a misaligned address");
  if (to >> 32 != barrier >> 32) fail("store_async: the mbarrier is not in the block of the data");
  if (int(to >> 32) == s.current->block->rank) fail("store_async to the own block");
  s.stores.push_back({to, barrier, v});
}
void copy_async(void* shared, const void* global, int bytes) {
  if (reinterpret_cast<uintptr_t>(shared) % uintptr_t(bytes) != 0 ||
      reinterpret_cast<uintptr_t>(global) % uintptr_t(bytes) != 0) {
    fail("copy_async of a misaligned address");
  }
  s.current->copies.push_back({shared, global, bytes});
}
void copy_async_commit() {
  s.current->groups.push_back(std::move(s.current->copies));
  s.current->copies.clear();
}
void copy_async_wait(int pending) {
  while (s.current->groups.size() > size_t(pending)) {
    for (const Copy& copy : s.current->groups.front()) std::memcpy(copy.to, copy.from, size_t(copy.bytes));
    s.current->groups.pop_front();
  }
}

void launch(const Launch& l, const std::function<void()>& thread) {
  const std::lock_guard<std::mutex> guard(one_launch);
  if (l.threads % warp_size != 0) fail("a block must have whole warps");
  const uint32_t cluster = l.cluster == 0 ? 1 : l.cluster, grid = l.x * l.y * l.z;
  if (l.x % cluster != 0) fail("the grid must be a multiple of the cluster");
  const uint32_t together = l.cooperative ? grid : cluster;  // blocks that live at the same time
  const char* seed = std::getenv("VFRNN_EMULATOR_SEED");
  s.random = seed == nullptr ? 0 : uint64_t(std::atoll(seed)) * 0x9e3779b97f4a7c15u;
  s.thread = &thread;
  ++s.launches;
  for (uint32_t first = 0; first < grid; first += together) {
    std::vector<std::unique_ptr<Block>> blocks;
    std::vector<std::unique_ptr<Fiber>> fibers;
    std::vector<Meeting> clusters((together + cluster - 1) / cluster);
    std::vector<std::vector<Block*>> peers(clusters.size());
    size_t used = 0;
    for (uint32_t b = 0; b < together; ++b) {
      auto block = std::make_unique<Block>();
      block->memory.assign(size_t(l.shared) + guard_bytes + 128, 0xff);
      block->shared = block->memory.data() + (128 - reinterpret_cast<uintptr_t>(block->memory.data()) % 128) % 128;
      block->shared_bytes = l.shared;
      std::memset(block->shared + l.shared, guard_value, guard_bytes);
      block->rank = int(b % cluster);
      block->meeting.members = int(l.threads);
      block->cluster = &clusters[b / cluster];
      block->cluster->members += int(l.threads);
      block->peers = &peers[b / cluster];
      block->peers->push_back(block.get());
      for (uint32_t w = 0; w < l.threads / warp_size; ++w) {
        block->warps.push_back(std::make_unique<Warp>());
        block->warps.back()->meeting.members = warp_size;
      }
      for (uint32_t t = 0; t < l.threads; ++t) {
        auto fiber = std::make_unique<Fiber>();
        const uint32_t index = first + b;
        fiber->place.thread = {t, 0, 0};
        fiber->place.block = {index % l.x, index / l.x % l.y, index / l.x / l.y};
        fiber->place.block_size = {l.threads, 1, 1};
        fiber->place.grid = {l.x, l.y, l.z};
        fiber->block = block.get();
        fiber->warp = block->warps[t / warp_size].get();
        if (used == s.stacks.size()) {
          void* stack = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
          if (stack == MAP_FAILED) fail("no memory for the stack of a thread");
          s.stacks.push_back(stack);
        }
        getcontext(&fiber->start);
        fiber->start.uc_stack.ss_sp = s.stacks[used++];
        fiber->start.uc_stack.ss_size = stack_bytes;
        fiber->start.uc_link = nullptr;
        makecontext(&fiber->start, enter, 0);
        s.ready.push_back(fiber.get());
        fibers.push_back(std::move(fiber));
      }
      blocks.push_back(std::move(block));
    }
    run_all(fibers, blocks);
  }
}

int64_t launches() {
  return s.launches;
}

}  // namespace vfrnn::gpu::emulator
