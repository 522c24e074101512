// Working memory of the kernels, kept from call to call by the thread that gave it back, so that a step meets no fresh page.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>
#include <vector>

#include "lanes.h"

namespace alps::ALPS_ISA {

class Floats {  // memory for `count` floats, aligned to a page, not set
 public:
  explicit Floats(int64_t count) : Floats(count, std::nothrow) {
    if (!data) throw std::bad_alloc();
  }
  // No data where there is no memory: for the parts of parallel threads, as what is thrown there ends the process.
  Floats(int64_t count, const std::nothrow_t&) : Floats(sizeof(float) * static_cast<size_t>(count), kept()) {}
  Floats(Floats&& other) noexcept : data(std::exchange(other.data, nullptr)), bytes_(other.bytes_) {}
  Floats& operator=(Floats&&) = delete;
  ~Floats() {
    if (!data) return;
    Kept& kept = Floats::kept();
    if (kept.bytes + bytes_ > MOST) {
      ::operator delete(data, PAGE);
    } else {
      kept.blocks.push_back({data, bytes_});
      kept.bytes += bytes_;
    }
  }

  float* data;

 private:
#ifdef __SANITIZE_ADDRESS__
  static constexpr size_t MOST = 0;  // every block its own, or what runs past its end would not be seen
#else
  static constexpr size_t MOST = size_t{64} << 20;  // bytes that a thread keeps
#endif
  static constexpr std::align_val_t PAGE{4096};

  struct Block {
    float* memory;
    size_t bytes;
  };
  struct Kept {
    std::vector<Block> blocks;
    size_t bytes = 0;
    ~Kept() {
      for (const Block& block : blocks) ::operator delete(block.memory, PAGE);
    }
  };
  static Kept& kept() {
    static thread_local Kept kept;
    return kept;
  }

  // The smallest kept block that is large enough, unless it is twice as large, or a new one.
  Floats(size_t bytes, Kept& kept) : bytes_(bytes) {
    Block* best = nullptr;
    for (Block& block : kept.blocks)
      if (block.bytes >= bytes && block.bytes <= 2 * bytes && (!best || block.bytes < best->bytes)) best = &block;
    if (best) {
      data = best->memory;
      bytes_ = best->bytes;
      kept.bytes -= bytes_;
      *best = kept.blocks.back();
      kept.blocks.pop_back();
    } else {
      data = static_cast<float*>(::operator new(bytes, PAGE, std::nothrow));
    }
  }

  size_t bytes_;
};

}  // namespace alps::ALPS_ISA
