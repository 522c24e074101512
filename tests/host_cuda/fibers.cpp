// A block's threads as fibers of one OS thread. A fiber runs until a barrier or a warp collective; which one runs next is the
// seed's choice. For AddressSanitizer and UBSan, and to see results change with the order where a barrier is missing.
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "common.h"

HOST_CUDA_STATE

namespace host_cuda {

constexpr size_t STACK = 256 << 10;
constexpr unsigned MOST_THREADS = 1024;

enum class State { READY, BARRIER, TEAM, COLLECTIVE, DONE };

struct Fiber {
  ucontext_t context;
  uint3 index;
  State state;
  void* fake_stack;
  unsigned parity;
  int team, team_size;  // of the barrier where it waits
};

static Fiber fibers[MOST_THREADS];
static uint64_t slots[2][MOST_THREADS];
static ucontext_t scheduler;
static const void* scheduler_stack;
static size_t scheduler_stack_size;
static Fiber* current;
static const std::function<void()>* body;
static unsigned threads;

static char* stack_of(const Fiber& fiber) {
  static char* const stacks = [] {
    void* memory = mmap(nullptr, STACK * MOST_THREADS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) fail("no memory for the stacks");
    return static_cast<char*>(memory);
  }();
  return stacks + STACK * static_cast<size_t>(&fiber - fibers);
}

static void leave(State state) {
  Fiber& self = *current;
  self.state = state;
  __sanitizer_start_switch_fiber(state == State::DONE ? nullptr : &self.fake_stack, scheduler_stack, scheduler_stack_size);
  swapcontext(&self.context, &scheduler);
  __sanitizer_finish_switch_fiber(self.fake_stack, nullptr, nullptr);
}

static void enter() {
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_size);
  (*body)();
  leave(State::DONE);
}

static void resume(Fiber& fiber) {
  current = &fiber;
  threadIdx = fiber.index;
  void* fake_stack;
  __sanitizer_start_switch_fiber(&fake_stack, stack_of(fiber), STACK);
  swapcontext(&scheduler, &fiber.context);
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
}

static void prepare(Fiber& fiber, unsigned i) {
  fiber.index = position(i, blockDim);
  fiber.state = State::READY;
  fiber.parity = 0;
  __asan_unpoison_memory_region(stack_of(fiber), STACK);  // the last fiber never returned from its last frames
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = stack_of(fiber);
  fiber.context.uc_stack.ss_size = STACK;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, enter, 0);
  fiber.context.uc_stack.ss_size = 0;  // or AddressSanitizer forgets the red zones of this stack at every switch
}

static void run_block() {
  std::vector<unsigned> ready(threads), at_collective(threads / WARP, 0), at_team[TEAMS];
  for (unsigned i = 0; i < threads; ++i) prepare(fibers[i], ready[i] = i);
  unsigned at_barrier = 0, done = 0;
  while (done < threads) {
    if (ready.empty()) fail("threads wait for others at another barrier or collective");
    std::swap(ready[random_source() % ready.size()], ready.back());
    const unsigned i = ready.back();
    ready.pop_back();
    resume(fibers[i]);
    const State state = fibers[i].state;
    if (state == State::DONE && ++done && at_barrier) fail("a thread ended while others wait at a barrier");
    if (state == State::BARRIER && ++at_barrier && done) fail("a barrier after the end of some thread");
    if (at_barrier == threads) {
      for (unsigned k = 0; k < threads; ++k) ready.push_back(k);
      at_barrier = 0;
    }
    if (state == State::TEAM) {
      std::vector<unsigned>& waiting = at_team[fibers[i].team];
      waiting.push_back(i);
      if (fibers[waiting[0]].team_size != fibers[i].team_size) fail("a team's barrier of several sizes");
      if (waiting.size() == static_cast<size_t>(fibers[i].team_size)) {
        ready.insert(ready.end(), waiting.begin(), waiting.end());
        waiting.clear();
      }
    }
    if (state == State::COLLECTIVE && ++at_collective[i / WARP] == WARP) {
      for (unsigned k = 0; k < WARP; ++k) ready.push_back(i / WARP * WARP + k);
      at_collective[i / WARP] = 0;
    }
  }
}

void run(dim3 grid, dim3 block, size_t shared, const std::function<void()>& thread, const Launched&) {
  whole_warps(block);
  blockDim = block;
  gridDim = grid;
  body = &thread;
  threads = static_cast<unsigned>(volume(block));
  __asan_poison_memory_region(shared_memory + shared, MOST_SHARED - shared);
  for (const uint64_t i : shuffled(volume(grid))) {
    blockIdx = position(i, grid);
    std::memset(shared_memory, 0xff, shared);  // NaNs
    run_block();
  }
  __asan_unpoison_memory_region(shared_memory, MOST_SHARED);
}

void sync_threads() { leave(State::BARRIER); }

void sync_team(int number, int count) {
  check_team(number, count);
  current->team = number, current->team_size = count;
  leave(State::TEAM);
}

const uint64_t* exchange(unsigned mask, uint64_t mine) {
  check_mask(mask);
  const unsigned i = rank(), parity = current->parity++ % 2;  // of two rows: nobody is two collectives ahead of a lane
  slots[parity][i] = mine;
  leave(State::COLLECTIVE);
  return slots[parity] + i / WARP * WARP;
}

}  // namespace host_cuda
