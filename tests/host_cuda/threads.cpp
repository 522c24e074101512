// One OS thread for each thread of a block: for ThreadSanitizer, to which a missing barrier is a race.
#include <barrier>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "common.h"

HOST_CUDA_STATE

namespace host_cuda {

static std::deque<std::barrier<>> warps;
static std::barrier<>* everybody;
static std::unique_ptr<std::barrier<>> teams[TEAMS];
static std::mutex of_teams;
static uint64_t slots[2][1024];
static thread_local unsigned parity;

void run(dim3 grid, dim3 block, size_t shared, const std::function<void()>& thread, const Launched&) {
  const unsigned count = whole_warps(block) * WARP;
  std::barrier<> all(count);
  everybody = &all;
  warps.clear();
  for (auto& team : teams) team.reset();
  for (unsigned i = 0; i < count / WARP; ++i) warps.emplace_back(WARP);
  const std::vector<uint64_t> order = shuffled(volume(grid));
  std::vector<std::thread> team;
  for (unsigned i = 0; i < count; ++i)
    team.emplace_back([&, i] {
      blockDim = block;
      gridDim = grid;
      threadIdx = position(i, block);
      for (const uint64_t at : order) {
        blockIdx = position(at, grid);
        if (i == 0) std::memset(shared_memory, 0xff, shared);  // NaNs
        all.arrive_and_wait();
        thread();
        all.arrive_and_wait();
      }
    });
  for (std::thread& member : team) member.join();
}

void sync_threads() { everybody->arrive_and_wait(); }

void sync_team(int number, int count) {
  check_team(number, count);
  {
    const std::lock_guard<std::mutex> lock(of_teams);
    if (!teams[number]) teams[number] = std::make_unique<std::barrier<>>(count);
  }
  teams[number]->arrive_and_wait();
}

const uint64_t* exchange(unsigned mask, uint64_t mine) {
  check_mask(mask);
  const unsigned i = rank(), row = parity++ % 2;  // of two: nobody is two collectives ahead of a lane
  slots[row][i] = mine;
  warps[i / WARP].arrive_and_wait();
  return slots[row] + i / WARP * WARP;
}

}  // namespace host_cuda
