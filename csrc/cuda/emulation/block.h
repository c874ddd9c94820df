// The block of cuda/block.h on a CPU. A phase loops over the block's threads, in an order the tests
// choose. The blocks of a launch run side by side, several at a time, and take turns at barriers,
// fences and atomics. A watch over memory reports what a barrier, a fence or an atomic should have
// kept apart. Nothing here is part of an installed build.
//
// Memory is as weak as a GPU's may be:
//   - what a block stores in global memory waits in a buffer of the block, seen by itself alone,
//     until a fence or the end of the block; atomics go to memory at once;
//   - a plain load may find what the block's own L1 cache still holds, so a plain load of a word
//     that another block of the launch has stored to is an error, whatever orders the two;
//   - each pointer stays within the part of memory it was made for.
//
// Two threads of a block conflict when, in the same phase, one stores to a word that the other
// loads or stores, unless both use atomics. Two blocks of a launch conflict on a global word in the
// same way unless one happened before the other: it stored, passed a barrier, a fence and an atomic
// on some word, and the other one after that an atomic on the same word, a fence and a barrier.
//
// Faults, to prove that the watch sees: `Faults::barrier` = k leaves out the block's k-th barrier
// as far as the watch is concerned; `Faults::atomics` takes the atomicity from atomics;
// `Faults::arrivals` lets fences order nothing. tests/cuda/test_cuda_mutants.py changes the
// sources.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <random>
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

// Who last did something to a word, and in which of the block's epochs (from barrier to barrier).
struct Access {
  static constexpr int kNobody = -1, kSeveral = -2;
  uint32_t block = UINT32_MAX;
  int thread = kNobody;
  int64_t epoch = -1;

  void add(uint32_t by_block, int by_thread, int64_t in_epoch) {
    const bool alone = block != by_block || epoch != in_epoch || thread == kNobody;
    thread = alone || thread == by_thread ? by_thread : kSeveral;
    block = by_block;
    epoch = in_epoch;
  }
};

struct WordHistory {
  int64_t launch = -1;  // the launch that the rest speaks of
  Access store, load, atomic;
};

// Which epochs of other blocks happened before now.
using Clock = std::map<uint32_t, int64_t>;

inline void join(Clock& clock, const Clock& other) {
  for (const auto& [block, epoch] : other) {
    const auto [at, fresh] = clock.emplace(block, epoch);
    if (!fresh) at->second = std::max(at->second, epoch);
  }
}

// One kernel launch: what its blocks share.
struct Launch {
  int64_t id = 0;
  Faults faults;
  std::map<std::string, int64_t> races;           // by kind
  int64_t barriers = 0;                           // most that a block of the launch passed
  std::unordered_map<uintptr_t, Clock> released;  // by the atomics on each word
  std::mt19937_64 random;
  bool shuffled = false;
  int64_t idle = 0;  // looks at counters since a block last did something else

  void race(const char* kind) { ++races[kind]; }
};

namespace emulation {

struct Region {
  Region(void* data, int64_t bytes)
      : begin(reinterpret_cast<uintptr_t>(data)), words(static_cast<size_t>(bytes) / 4 + 1) {}

  uintptr_t begin;
  std::vector<WordHistory> words;

  WordHistory& word(uintptr_t address, int64_t launch) {
    WordHistory& history = words[(address - begin) / 4];
    if (history.launch != launch) history = {launch, {}, {}, {}};
    return history;
  }
};

// A body with a stack of its own, which runs until it yields.
class Fiber {
 public:
  explicit Fiber(std::function<void()> body) : body_(std::move(body)), stack_(new char[kStack]) {
    getcontext(&own_);
    own_.uc_stack.ss_sp = stack_.get();
    own_.uc_stack.ss_size = kStack;
    own_.uc_link = &caller_;
    const auto self = reinterpret_cast<uintptr_t>(this);
    makecontext(&own_, reinterpret_cast<void (*)()>(&Fiber::start), 2,
                static_cast<unsigned>(self >> 32), static_cast<unsigned>(self));
  }

  // Runs the body on; true when it has ended. Throws what it threw.
  bool resume() {
    swapcontext(&caller_, &own_);
    if (error_) std::rethrow_exception(error_);
    return done_;
  }
  void yield() { swapcontext(&own_, &caller_); }

 private:
  static void start(unsigned high, unsigned low) {
    auto* self = reinterpret_cast<Fiber*>(static_cast<uintptr_t>(high) << 32 | low);
    try {
      self->body_();
    } catch (...) {
      self->error_ = std::current_exception();
    }
    self->done_ = true;
  }

  static constexpr size_t kStack = 256 * 1024;
  std::function<void()> body_;
  std::unique_ptr<char[]> stack_;
  ucontext_t own_, caller_;
  std::exception_ptr error_;
  bool done_ = false;
};

}  // namespace emulation

class EmulatedBlock {
 public:
  // A pointer to shared memory that reports what is done through it.
  template <typename T>
  class Shared {
   public:
    class Word {
     public:
      Word(T* at, EmulatedBlock* block) : at_(at), block_(block) {}
      operator T() const {
        block_->note_load(block_->shared_words(at_));
        return *at_;
      }
      Word& operator=(T value) {
        block_->note_store(block_->shared_words(at_));
        *at_ = value;
        return *this;
      }
      Word& operator=(const Word& other) { return *this = static_cast<T>(other); }

     private:
      T* at_;
      EmulatedBlock* block_;
    };

    Shared(T* at, EmulatedBlock* block) : at_(at), block_(block) {}
    Word operator[](int64_t i) const { return Word(at_ + i, block_); }
    Shared operator+(int64_t i) const { return Shared(at_ + i, block_); }
    T* address() const { return at_; }

   private:
    T* at_;
    EmulatedBlock* block_;
  };

  EmulatedBlock(Launch& launch, uint32_t index, int threads, int shared_bytes, int64_t order)
      : launch_(launch),
        index_(index),
        memory_(shared_bytes + 2 * kGuard, 0xa5),  // uninitialised on a GPU: never zero by luck
        shared_(memory_.data() + kGuard),
        shared_bytes_(shared_bytes),
        history_(shared_bytes / 4 + 1),
        order_(threads) {
    std::iota(order_.begin(), order_.end(), 0);
    if (order == 1) std::reverse(order_.begin(), order_.end());
  }

  ~EmulatedBlock() { launch_.barriers = std::max(launch_.barriers, barriers_); }

  // Runs body(*this) in turns: each call until the block gives way. True when it has ended.
  bool advance(const std::function<void(EmulatedBlock&)>& body) {
    if (!fiber_) {
      fiber_ = std::make_unique<emulation::Fiber>([this, &body] {
        body(*this);
        drain([](const Stored&) { return true; });
      });
    }
    current = this;
    return fiber_->resume();
  }

  static inline thread_local EmulatedBlock* current = nullptr;

  // ---- what cuda/block.h promises
  // ----------------------------------------------------------------

  uint32_t index() const { return index_; }

  template <typename F>
  void phase(F body) {
    last_phase(body);
    if (barriers_++ != launch_.faults.barrier) ++epoch_;
    give_way();
  }

  template <typename F>
  void last_phase(F body) {
    shuffle();
    for (const int t : order_) {
      thread_ = t;
      body(t);
    }
    thread_ = Access::kSeveral;
  }

  template <typename T>
  Shared<T> shared(int offset) {
    if (offset % sizeof(T) != 0) throw std::logic_error("misaligned shared memory");
    return Shared<T>(reinterpret_cast<T*>(shared_ + offset), this);
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
    update(pointer, [&](auto old) { return std::max<decltype(old)>(old, value); });
  }

  template <typename T>
  std::remove_const_t<T> fresh(const Global<T>& p) {
    note_load(words(p));
    std::remove_const_t<T> value;
    read(p.region(), p.checked(), &value, sizeof value);
    sometimes_give_way();
    return value;
  }

  // Each look at the counter is an atomic that changes nothing. Blocks that all only look, for long,
  // wait for each other.
  void wait(const Global<uint32_t>& counter, uint32_t value) {
    while (update(counter, [](uint32_t old) { return old; }) < value) {
      if (++launch_.idle > kMostIdle) throw std::logic_error("blocks wait for each other");
      fiber_->yield();
    }
    launch_.idle = 0;
  }

  // Publishes what the block stored before its last barrier, and the thread before the fence; and
  // takes note of what the atomics that the thread did have found published.
  void fence() {
    drain([&](const Stored& s) { return s.epoch < epoch_ || s.thread == thread_; });
    if (!launch_.faults.arrivals) {
      join(clock_, seen_);
      released_ = clock_;
      released_[index_] = epoch_ - 1;
    }
    give_way();
  }

  // ---- what emulation/global.h reports
  // -----------------------------------------------------------

  void load(emulation::Region* region, uintptr_t from, void* to, int bytes) {
    const Words at = words(region, from, bytes);
    for (WordHistory* h : at) {
      if (foreign(h->store) || foreign(h->atomic)) {
        launch_.race("plain load of what another block stored");
      }
    }
    note_load(at);
    read(region, from, to, bytes);
  }

  void store(emulation::Region* region, uintptr_t to, const void* from, int bytes) {
    note_store(words(region, to, bytes));
    for (int i = 0; i < bytes; i += 4) {
      Stored& stored = stored_[to + i];
      std::memcpy(&stored.value, static_cast<const char*>(from) + i, 4);
      stored.epoch = epoch_;
      stored.thread = thread_;
    }
  }

 private:
  struct Stored {
    uint32_t value;
    int64_t epoch;
    int thread;
  };

  // The histories of the one or two words of an element.
  struct Words {
    WordHistory* word[2];
    int count;
    WordHistory** begin() { return word; }
    WordHistory** end() { return word + count; }
    WordHistory* const* begin() const { return word; }
    WordHistory* const* end() const { return word + count; }
  };

  Words words(emulation::Region* region, uintptr_t address, int bytes) {
    Words at{{&region->word(address, launch_.id), nullptr}, 1};
    if (bytes == 8) at.word[at.count++] = &region->word(address + 4, launch_.id);
    return at;
  }
  template <typename T>
  Words words(const Global<T>& p) {
    return words(p.region(), p.checked(), sizeof(T));
  }
  template <typename T>
  Words shared_words(const T* at) {
    const auto offset = reinterpret_cast<const unsigned char*>(at) - shared_;
    if (offset < 0 || offset + static_cast<int64_t>(sizeof(T)) > shared_bytes_) {
      throw std::logic_error("access beyond the block's shared memory");
    }
    Words words{{&history_[offset / 4], nullptr}, 1};
    if (sizeof(T) == 8) words.word[words.count++] = &history_[offset / 4 + 1];
    return words;
  }

  bool foreign(const Access& a) const { return a.block != UINT32_MAX && a.block != index_; }

  // Whether nothing orders what was done to a word before what is done now.
  bool unordered(const Access& a) const {
    if (a.block == UINT32_MAX) return false;
    if (a.block != index_) {
      const auto known = clock_.find(a.block);
      return known == clock_.end() || known->second < a.epoch;
    }
    return a.epoch == epoch_ && (a.thread != thread_ || thread_ == Access::kSeveral);
  }

  void note_load(Words at) {
    for (WordHistory* h : at) {
      if (unordered(h->store)) launch_.race("load of a word another thread stores to");
      if (unordered(h->atomic)) launch_.race("load of a word another thread updates");
      h->load.add(index_, thread_, epoch_);
    }
  }

  void note_store(Words at) {
    for (WordHistory* h : at) {
      if (unordered(h->store)) launch_.race("two threads store to a word");
      if (unordered(h->load)) launch_.race("store to a word another thread loads");
      if (unordered(h->atomic)) launch_.race("store to a word another thread updates");
      h->store.add(index_, thread_, epoch_);
    }
  }

  void note_atomic(Words at) {
    if (launch_.faults.atomics) {
      note_load(at);
      note_store(at);
      return;
    }
    for (WordHistory* h : at) {
      if (unordered(h->store) || unordered(h->load)) {
        launch_.race("update of a word another thread loads or stores to");
      }
      h->atomic.add(index_, thread_, epoch_);
    }
  }

  template <typename T, typename F>
  T update(const Shared<T>& pointer, F f) {
    note_atomic(shared_words(pointer.address()));
    const T old = *pointer.address();
    *pointer.address() = f(old);
    return old;
  }

  template <typename T, typename F>
  T update(const Global<T>& pointer, F f) {
    const uintptr_t at = pointer.checked();
    note_atomic(words(pointer));
    drain([&](const Stored&) { return false; }, at, sizeof(T));
    T old;
    std::memcpy(&old, pointer.raw(), sizeof old);
    const T next = f(old);
    std::memcpy(pointer.raw(), &next, sizeof next);
    const auto released = launch_.released.find(at);
    if (released != launch_.released.end()) join(seen_, released->second);
    if (!released_.empty()) join(launch_.released[at], released_);
    sometimes_give_way();
    return old;
  }

  // A word as this block sees it: its own store, or what is in memory.
  void read(emulation::Region*, uintptr_t from, void* to, int bytes) const {
    std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
    if (stored_.empty()) return;
    for (int i = 0; i < bytes; i += 4) {
      const auto own = stored_.find(from + i);
      if (own != stored_.end()) std::memcpy(static_cast<char*>(to) + i, &own->second.value, 4);
    }
  }

  // Moves the stores that `which` names, or that lie in `bytes` from `at`, to memory.
  template <typename Which>
  void drain(Which which, uintptr_t at = 0, uintptr_t bytes = 0) {
    if (bytes) {
      for (uintptr_t word = at; word < at + bytes; word += 4) {
        const auto own = stored_.find(word);
        if (own == stored_.end()) continue;
        std::memcpy(reinterpret_cast<void*>(word), &own->second.value, 4);
        stored_.erase(own);
      }
      return;
    }
    for (auto own = stored_.begin(); own != stored_.end();) {
      if (!which(own->second)) {
        ++own;
        continue;
      }
      std::memcpy(reinterpret_cast<void*>(own->first), &own->second.value, 4);
      own = stored_.erase(own);
    }
  }

  void shuffle() {
    if (launch_.shuffled) std::shuffle(order_.begin(), order_.end(), launch_.random);
  }
  void give_way() {
    launch_.idle = 0;
    fiber_->yield();
  }
  void sometimes_give_way() {
    if (launch_.shuffled && launch_.random() % 8 == 0) fiber_->yield();
  }

  static constexpr int kGuard = 64;
  static constexpr int64_t kMostIdle = 10000;

  Launch& launch_;
  uint32_t index_;
  std::vector<unsigned char> memory_;
  unsigned char* shared_;
  int shared_bytes_;
  std::vector<WordHistory> history_;
  std::vector<int> order_;
  std::unordered_map<uintptr_t, Stored> stored_;
  std::unique_ptr<emulation::Fiber> fiber_;
  int thread_ = Access::kSeveral;
  int64_t epoch_ = 0;
  int64_t barriers_ = 0;
  Clock released_;  // what the last fence has published: this block's epochs, and others' before
  Clock clock_;     // what happened before
  Clock seen_;      // what will have, after a fence
};

namespace emulation {

inline uintptr_t start_of(const Region* region) { return region->begin; }

inline void load(Region* region, uintptr_t from, void* to, int bytes) {
  EmulatedBlock::current->load(region, from, to, bytes);
}
inline void store(Region* region, uintptr_t to, const void* from, int bytes) {
  EmulatedBlock::current->store(region, to, from, bytes);
}

}  // namespace emulation
}  // namespace gag_fast::cuda
