// Pointers to global memory on a CPU: each knows the bounds of what it points into, and tells the
// running block of every access. On a GPU they are plain pointers (cuda/block.h).
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <type_traits>

namespace gag_fast::cuda {

namespace emulation {

struct Region;  // an allocation: its bytes and what happened to them (emulation/block.h)

// What the running block reads from and writes to memory, `bytes` of it.
void load(Region* region, uintptr_t from, void* to, int bytes);
void store(Region* region, uintptr_t to, const void* from, int bytes);

uintptr_t start_of(const Region* region);

}  // namespace emulation

template <typename T>
class Global {
 public:
  using Value = std::remove_const_t<T>;

  // An element that is read or written when it is used.
  class Word {
   public:
    explicit Word(const Global& at) : at_(at) {}
    operator Value() const {
      Value value;
      emulation::load(at_.region_, at_.checked(), &value, sizeof value);
      return value;
    }
    Word& operator=(Value value) {
      static_assert(!std::is_const_v<T>);
      emulation::store(at_.region_, at_.checked(), &value, sizeof value);
      return *this;
    }
    Word& operator=(const Word& other) { return *this = static_cast<Value>(other); }

   private:
    Global at_;
  };

  Global() = default;
  Global(std::nullptr_t) {}
  // `count` elements of `region` from `first` on.
  Global(emulation::Region* region, void* first, int64_t count)
      : region_(region),
        at_(reinterpret_cast<uintptr_t>(first)),
        begin_(at_),
        end_(at_ + static_cast<uintptr_t>(count) * sizeof(T)) {}
  template <typename U, typename = std::enable_if_t<std::is_same_v<const U, T>>>
  Global(const Global<U>& other)
      : region_(other.region_), at_(other.at_), begin_(other.begin_), end_(other.end_) {}

  Global operator+(int64_t by) const {
    Global moved = *this;
    moved.at_ += static_cast<uintptr_t>(by) * sizeof(T);
    return moved;
  }
  Word operator[](int64_t i) const { return Word(*this + i); }
  explicit operator bool() const { return region_ != nullptr; }

  T* raw() const { return reinterpret_cast<T*>(at_); }
  emulation::Region* region() const { return region_; }

  // The address, if there is an element of the pointer's own part of memory.
  uintptr_t checked() const {
    if (at_ < begin_ || at_ + sizeof(T) > end_) {
      throw std::logic_error("access outside its part of global memory");
    }
    return at_;
  }

 private:
  template <typename U>
  friend class Global;

  emulation::Region* region_ = nullptr;
  uintptr_t at_ = 0, begin_ = 0, end_ = 0;
};

namespace emulation {

// `bytes` of a region, `offset` from its start.
template <typename T>
Global<T> part_of(Region* region, int64_t offset, int64_t bytes) {
  void* const first = reinterpret_cast<void*>(start_of(region) + static_cast<uintptr_t>(offset));
  return Global<T>(region, first, bytes / static_cast<int64_t>(sizeof(T)));
}

}  // namespace emulation

}  // namespace gag_fast::cuda
