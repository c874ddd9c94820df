// Working memory that is kept from call to call. Torch-free.
//
// Freed memory at the end of the heap goes back to the operating system, and the next call pays for
// each of its pages again: for one image of 224 x 224 that takes longer than the aggregation. So
// the block that was used last is kept, unless it is large. Calls that run at the same time
// allocate their own.
#pragma once

#include <atomic>
#include <cstddef>
#include <new>

namespace gag_fast {

class Scratch {
 public:
  explicit Scratch(size_t bytes) : block_(kept().exchange(nullptr)) {
    if (block_ && block_->bytes >= bytes) return;
    release(block_);
    block_ = new Block{bytes, ::operator new(bytes, kAlignment)};
  }
  ~Scratch() {
    if (block_->bytes <= kMostKept) block_ = kept().exchange(block_);
    release(block_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  void* data() const { return block_->data; }

 private:
  struct Block {
    size_t bytes;
    void* data;
  };
  static constexpr size_t kMostKept = size_t{32} << 20;
  static constexpr std::align_val_t kAlignment{64};

  // An exchanged pointer rather than a lock: nothing to be held across a fork. Never destroyed, so
  // that it outlives whatever runs at exit.
  static std::atomic<Block*>& kept() {
    static std::atomic<Block*> block{nullptr};
    return block;
  }
  static void release(Block* block) {
    if (!block) return;
    ::operator delete(block->data, kAlignment);
    delete block;
  }

  Block* block_;
};

}  // namespace gag_fast
