// The block of cuda/block.h on a CPU: a phase loops over the block's threads, in an order the tests
// choose, and a watch over memory reports what a barrier, an atomic or an arrival should have kept
// apart. Nothing here is part of an installed build.
//
// Two threads of a block conflict when, in the same phase, one writes a word that the other reads
// or writes, unless both use atomics. Two blocks of a launch conflict on a watched global word in
// the same way, unless the one that came first had arrived at a counter before the other's arrival
// there was answered "last". Shared memory is watched always, global memory where the body says so.
//
// Faults, to prove that the watch sees: `Faults::barrier` = k leaves out the block's k-th barrier
// as far as the watch is concerned; `Faults::atomics` takes the atomicity from atomics;
// `Faults::arrivals` lets arrivals order nothing.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "cuda/block.h"

namespace gag_fast::cuda {

struct Faults {
  int64_t barrier = -1;
  bool atomics = false;
  bool arrivals = false;
};

// What happened to one watched word.
struct WordHistory {
  static constexpr int kNobody = -1, kSeveral = -2;
  uint32_t writer_block = UINT32_MAX, reader_block = UINT32_MAX, atomic_block = UINT32_MAX;
  int64_t write_epoch = -1, read_epoch = -1, atomic_epoch = -1;
  int writer = kNobody, reader = kNobody, atomic = kNobody;
  bool late = false;  // changed by a block that had already arrived: no arrival orders that
};

// One kernel launch: what its blocks share.
struct Launch {
  Faults faults;
  std::map<std::string, int64_t> races;  // by kind
  int64_t barriers = 0;                  // most that a block of the launch passed
  std::unordered_map<uintptr_t, WordHistory> global;
  std::map<const uint32_t*, std::set<uint32_t>> arrivals;

  void race(const char* kind) { ++races[kind]; }
};

class EmulatedBlock {
 public:
  // A pointer that reports what is done through it.
  template <typename T>
  class Watched {
   public:
    class Word {
     public:
      Word(T* at, EmulatedBlock* block) : at_(at), block_(block) {}
      operator T() const {
        block_->note_read(at_);
        return *at_;
      }
      Word& operator=(T value) {
        block_->note_write(at_);
        *at_ = value;
        return *this;
      }
      Word& operator=(const Word& other) { return *this = static_cast<T>(other); }

     private:
      T* at_;
      EmulatedBlock* block_;
    };

    Watched(T* at, EmulatedBlock* block) : at_(at), block_(block) {}
    Word operator[](int64_t i) const { return Word(at_ + i, block_); }
    Word operator*() const { return Word(at_, block_); }
    Watched operator+(int64_t i) const { return Watched(at_ + i, block_); }
    T* address() const { return at_; }

   private:
    T* at_;
    EmulatedBlock* block_;
  };

  EmulatedBlock(Launch& launch, uint32_t index, int threads, int shared_bytes, uint64_t order)
      : launch_(launch),
        index_(index),
        memory_(shared_bytes + 2 * kGuard, 0xa5),  // uninitialised on a GPU: never zero by luck
        shared_(memory_.data() + kGuard),
        shared_bytes_(shared_bytes),
        history_(shared_bytes / 4 + 1),
        order_(threads) {
    std::iota(order_.begin(), order_.end(), 0);
    if (order == 1) std::reverse(order_.begin(), order_.end());
    if (order > 1) std::shuffle(order_.begin(), order_.end(), std::mt19937_64(order + index));
  }

  ~EmulatedBlock() { launch_.barriers = std::max(launch_.barriers, barriers_); }

  // ---- what cuda/block.h promises --------------------------------------------------------------

  uint32_t index() const { return index_; }

  template <typename F>
  void phase(F body) {
    last_phase(body);
    barrier();
  }

  template <typename F>
  void last_phase(F body) {
    for (const int t : order_) {
      thread_ = t;
      body(t);
    }
    thread_ = WordHistory::kSeveral;
  }

  template <typename T>
  Watched<T> shared(int offset) {
    if (offset % sizeof(T) != 0) throw std::logic_error("misaligned shared memory");
    return Watched<T>(reinterpret_cast<T*>(shared_ + offset), this);
  }

  template <typename T>
  Watched<T> watched(T* pointer) {
    return Watched<T>(pointer, this);
  }

  template <typename P, typename V>
  V atomic_add(P pointer, V value) {
    return update(pointer, [&](auto old) { return old + value; });
  }
  template <typename P, typename V>
  void atomic_or(P pointer, V value) {
    update(pointer, [&](auto old) { return old | value; });
  }
  template <typename P, typename V>
  void atomic_max(P pointer, V value) {
    update(pointer, [&](auto old) { return std::max(old, value); });
  }

  template <typename T>
  T fresh(const T* p) {
    note_read(p);
    return *p;
  }
  template <typename T>
  T fresh(const Watched<T>& p) {
    return *p;
  }

  bool arrive(uint32_t* counter, uint32_t blocks) {
    // Thread 0 releases for the block only what a barrier has handed to it.
    if (unreleased_ > epoch_ - 1) launch_.race("arrival without a barrier after a write");
    std::set<uint32_t>& arrived = launch_.arrivals[counter];
    arrived.insert(index_);
    const bool last = (*counter)++ == blocks - 1;
    if (last && !launch_.faults.arrivals) ordered_after_ = arrived;
    arrived_ = !last;
    launch_.global.erase(reinterpret_cast<uintptr_t>(&answer_) / 4);  // another block's once
    thread_ = 0;
    note_write(&answer_);
    thread_ = WordHistory::kSeveral;
    barrier();
    note_read(&answer_);
    return last;
  }

 private:
  void barrier() {
    if (barriers_++ != launch_.faults.barrier) ++epoch_;
  }

  // Calls body(history, is global) for each 4-byte word of *at. Shared memory lies between
  // two guards: an access that strays into them is an error at once.
  template <typename T, typename Body>
  void each_word(const T* at, Body body) {
    const auto address = reinterpret_cast<uintptr_t>(at);
    const auto start = reinterpret_cast<uintptr_t>(shared_);
    for (uintptr_t word = address / 4; word < (address + sizeof(T) + 3) / 4; ++word) {
      const uintptr_t byte = word * 4;
      if (byte >= start && byte < start + shared_bytes_) {
        body(history_[(byte - start) / 4], false);
      } else if (byte + kGuard >= start && byte < start + shared_bytes_ + kGuard) {
        throw std::logic_error("access beyond the block's shared memory");
      } else {
        body(launch_.global[word], true);
      }
    }
  }

  // Whether nothing orders what another thread or block did to a word before what is done now.
  bool unordered(uint32_t block, int64_t epoch, int who, bool late) const {
    if (block == UINT32_MAX) return false;
    if (block != index_) return late || ordered_after_.count(block) == 0;
    return epoch == epoch_ && (who != thread_ || thread_ == WordHistory::kSeveral);
  }
  bool unordered_write(const WordHistory& h) const {
    return unordered(h.writer_block, h.write_epoch, h.writer, h.late);
  }
  bool unordered_read(const WordHistory& h) const {
    return unordered(h.reader_block, h.read_epoch, h.reader, false);
  }
  bool unordered_update(const WordHistory& h) const {
    return unordered(h.atomic_block, h.atomic_epoch, h.atomic, h.late);
  }

  static int merge(int64_t old_epoch, uint32_t old_block, int old, int64_t epoch, uint32_t block,
                   int who) {
    if (old_epoch != epoch || old_block != block || old == WordHistory::kNobody) return who;
    return old == who ? who : WordHistory::kSeveral;
  }

  template <typename T>
  void note_read(const T* at) {
    each_word(at, [&](WordHistory& h, bool) {
      if (unordered_write(h)) {
        launch_.race("read of a word another thread writes");
      }
      if (unordered_update(h)) {
        launch_.race("read of a word another thread updates");
      }
      h.reader = merge(h.read_epoch, h.reader_block, h.reader, epoch_, index_, thread_);
      h.read_epoch = epoch_, h.reader_block = index_;
    });
  }

  template <typename T>
  void note_write(const T* at) {
    each_word(at, [&](WordHistory& h, bool global) {
      if (unordered_write(h)) {
        launch_.race("two threads write a word");
      }
      if (unordered_read(h)) {
        launch_.race("write of a word another thread reads");
      }
      if (unordered_update(h)) {
        launch_.race("write of a word another thread updates");
      }
      h.writer = merge(h.write_epoch, h.writer_block, h.writer, epoch_, index_, thread_);
      h.write_epoch = epoch_, h.writer_block = index_;
      h.late |= arrived_;
      if (global && thread_ != 0) unreleased_ = epoch_;
    });
  }

  template <typename T>
  void note_atomic(const T* at) {
    if (launch_.faults.atomics) {
      note_read(at);
      note_write(at);
      return;
    }
    each_word(at, [&](WordHistory& h, bool global) {
      if (unordered_write(h) || unordered_read(h)) {
        launch_.race("update of a word another thread reads or writes");
      }
      h.atomic = merge(h.atomic_epoch, h.atomic_block, h.atomic, epoch_, index_, thread_);
      h.atomic_epoch = epoch_, h.atomic_block = index_;
      h.late |= arrived_;
      if (global && thread_ != 0) unreleased_ = epoch_;
    });
  }

  template <typename T, typename F>
  T update(T* pointer, F f) {
    note_atomic(pointer);
    const T old = *pointer;
    *pointer = f(old);
    return old;
  }
  template <typename T, typename F>
  T update(const Watched<T>& pointer, F f) {
    return update(pointer.address(), f);
  }

  static constexpr int kGuard = 65536;

  Launch& launch_;
  uint32_t index_;
  std::vector<unsigned char> memory_;
  unsigned char* shared_;
  int shared_bytes_;
  std::vector<WordHistory> history_;
  std::vector<int> order_;
  int thread_ = WordHistory::kSeveral;
  int64_t epoch_ = 0;
  int64_t barriers_ = 0;
  int64_t unreleased_ = -1;  // epoch of the last global write by a thread other than 0
  bool arrived_ = false;
  uint32_t answer_ = 0;  // of an arrival, which thread 0 hands to the others
  std::set<uint32_t> ordered_after_;
};

}  // namespace gag_fast::cuda
