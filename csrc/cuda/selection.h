// Kernels that find, for every row and percent, the threshold of the guide: one order statistic of
// the variance, or in a close call two (math/percentile.h). Torch-free; see block.h for how they
// are written.
//
// Long rows: the statistics kernel has counted the first digits, so each block knows for each
// rank which of 2048 bins its order statistic is in. The row's blocks read the row once (from
// the L2 cache, where it was just written) and keep the keys in those bins, a few percent of the
// row: the candidates. The last block to finish a row selects among the candidates, ten bits at a
// time. Short rows are their own candidates.
//
// Where there would be many candidates for that one block, SecondDigits goes before: all blocks of
// a row count the next ten bits, and few keys are candidates then.
#pragma once

#include <cstdint>

#include "cuda/block.h"
#include "cuda/digits.h"

namespace gag_fast::cuda {

inline constexpr int64_t kShortRow = 8192;

// p = 0: the guide is 1 whatever the variance. Told to the kernels that follow by a threshold that
// no variance has.
template <typename A>
inline constexpr A kNoThreshold = A(-1);

// Counts, for each rank, the second digits of the keys of its bin.
template <typename A>
struct SecondDigits {
  static constexpr int kThreads = 512;
  static constexpr int kBlocksPerMultiprocessor = 2;
  using D = Digits<A, kThreads>;
  static constexpr int kSharedBytes = D::kEnd;
  static_assert(kSharedBytes <= kMostShared);

  Global<const A> m2;                // [rows, pixels]
  Global<const uint32_t> histogram;  // [rows, kFirstBins]
  Global<uint32_t> second;           // [rows, ranks, D::kBins], 0 at launch
  Percents percents;
  uint32_t pixels;
  uint32_t parts;  // blocks per row

  int shared_bytes() const { return kSharedBytes; }

  template <typename Block>
  GAG_BODY void operator()(Block& block) const {
    const uint32_t row = block.index() / parts;
    const auto from = m2 + static_cast<int64_t>(row) * pixels;
    const Piece piece = piece_of(block.index() % parts, parts, pixels);
    auto counts = block.template shared<uint32_t>(0);
    D::template find_first<false>(block, percents,
                                  histogram + static_cast<int64_t>(row) * kFirstBins);
    D::each_few(percents, [&](int first, int together) {
      D::count(block, first, together, D::kRestBits - D::kDigitBits, D::kDigitBits, piece.begin,
               piece.end, [&](uint32_t i) { return order_key(static_cast<A>(from[i])); });
      // No barrier: count() clears what the same thread has read.
      block.last_phase([&](int t) {
        const auto to = second + (static_cast<int64_t>(row) * percents.ranks + first) * D::kBins;
        for (int i = t; i < together * D::kBins; i += kThreads) {
          const uint32_t count = counts[i];
          if (count) block.atomic_add(to + i, count);
        }
      });
    });
  }
};

// kFresh: see read_one (stack.h).
template <typename A, int kThreadsOfBlock = 512, bool kFresh = false>
struct Selection {
  using K = Key<A>;
  static constexpr int kThreads = kThreadsOfBlock;
  using D = Digits<A, kThreads>;
  static constexpr int kBlocksPerMultiprocessor = 2;
  static constexpr int kInFlight = D::kInFlight;

  static constexpr int kKept = D::kScratchBytes / static_cast<int>(sizeof(K));
  static constexpr int kFill = D::kEnd;
  static constexpr int kAnswer = kFill + 8;
  static constexpr int kSharedBytes = kAnswer + 4;
  static_assert(kSharedBytes <= kMostShared);

  Global<const A> m2;                // [rows, pixels]
  Global<const uint32_t> histogram;  // [rows, kFirstBins]; null: short rows
  Global<const uint32_t> second;     // [rows, ranks, D::kBins]; null: not counted
  Global<K> candidates;              // [rows, pixels]
  Global<uint32_t> found;            // [rows] candidates, 0 at launch
  Global<uint32_t> arrived;          // [rows] blocks, 0 at launch
  Global<A> thresholds;              // [rows, threshold_stride], the variance itself
  int64_t threshold_stride;
  Percents percents;
  uint32_t pixels;
  uint32_t parts;  // blocks per row
  A freedom;       // n - 1: variance = m2 / (n - 1)

  int shared_bytes() const { return kSharedBytes; }

  // `shift`: added to the places in m2 and candidates.
  template <typename Block>
  GAG_BODY void operator()(Block& block, int64_t shift = 0) const {
    const uint32_t row = block.index() / parts;
    const int64_t base = static_cast<int64_t>(row) * pixels + shift;
    auto prefixes = block.template shared<K>(D::kPrefixes);
    auto ranks = block.template shared<uint32_t>(D::kRanks);

    if (!kFresh && !histogram) {  // a stage of a launch has long rows
      // No barrier: finish() has one before it looks.
      block.last_phase([&](int t) {
        if (t < percents.ranks) {
          prefixes[t] = 0;
          ranks[t] = percents.rank[t];
        }
      });
      finish(block, row, pixels, KeyOf<A>::bits,
             [&](uint32_t i) { return order_key(static_cast<A>(m2[base + i])); });
      return;
    }
    auto fill = block.template shared<uint32_t>(kFill);
    block.last_phase([&](int t) {
      if (t == 0) fill[0] = 0;  // long before keep_candidates() adds to it
    });
    D::template find_first<kFresh>(block, percents,
                                   histogram + static_cast<int64_t>(row) * kFirstBins);
    if (knows_second()) find_second(block, row);
    const int rest = knows_second() ? D::kRestBits - D::kDigitBits : D::kRestBits;
    keep_candidates(block, row, base, rest);
    if (!arrive(block, arrived + row, parts, kAnswer)) return;
    const auto list = candidates + base;
    finish(block, row, block.fresh(found + row), rest,
           [&](uint32_t i) { return block.fresh(list + i); });
  }

 private:
  // Never as a stage of a launch.
  GAG_BODY bool knows_second() const { return !kFresh && second; }

  template <typename Block>
  GAG_BODY void find_second(Block& block, uint32_t row) const {
    auto counts = block.template shared<uint32_t>(0);
    D::each_few(percents, [&](int first, int together) {
      block.phase([&](int t) {
        const auto from = second + (static_cast<int64_t>(row) * percents.ranks + first) * D::kBins;
        for (int i = t; i < together * D::kBins; i += kThreads) counts[i] = from[i];
      });
      D::narrow(block, first, together, D::kDigitBits);
    });
  }

  // Whether the upper bits of a key in a wanted bin are those of a rank.
  template <typename Prefixes>
  GAG_BODY bool has_prefix(K key, int rest, Prefixes prefixes) const {
    if (!knows_second()) return true;
    GAG_UNROLL_NEVER
    for (int g = 0; g < percents.ranks; ++g) {
      if (key >> rest == prefixes[g]) return true;
    }
    return false;
  }

  // The block's part of the row: the keys that are known but for `rest` bits go to the row's
  // candidates, in no particular order. They gather in shared memory first; what does not fit there
  // (many ties, many percents) goes straight to the list.
  template <typename Block>
  GAG_BODY void keep_candidates(Block& block, uint32_t row, int64_t base, int rest) const {
    auto kept = block.template shared<K>(0);
    auto wanted = block.template shared<uint32_t>(D::kWanted);
    auto prefixes = block.template shared<K>(D::kPrefixes);
    auto fill = block.template shared<uint32_t>(kFill);
    const auto from = m2 + base;
    const auto list = candidates + base;
    const Piece piece = piece_of(block.index() % parts, parts, pixels);

    block.phase([&](int t) {
      for (uint32_t i = piece.begin + t; i < piece.end; i += kInFlight * kThreads) {
        K keys[kInFlight];
        GAG_UNROLL
        for (int u = 0; u < kInFlight; ++u) {
          const uint32_t at = i + u * kThreads;
          keys[u] = at < piece.end ? order_key(read_one<kFresh>(block, from + at)) : 0;
        }
        uint32_t matches = 0;
        GAG_UNROLL
        for (int u = 0; u < kInFlight; ++u) {
          const uint32_t bin = first_digit<A>(keys[u]);
          uint32_t hit = (wanted[bin / 32] >> (bin % 32)) & 1u;
          if (hit && !has_prefix(keys[u], rest, prefixes)) hit = 0;
          if (i + u * kThreads < piece.end) matches |= hit << u;
        }
        if (!matches) continue;
        const uint32_t many = ones(matches);
        uint32_t to = block.atomic_add(fill, many);
        uint32_t beyond = 0;
        if (to + many > kKept) {
          const uint32_t room = to < kKept ? kKept - to : 0;
          beyond = block.atomic_add(found + row, many - room) - room;
        }
        const uint32_t start = to;
        GAG_UNROLL
        for (int u = 0; u < kInFlight; ++u) {
          if (!((matches >> u) & 1u)) continue;
          if (to < kKept) {
            kept[to] = keys[u];
          } else {
            list[beyond + (to - start)] = keys[u];
          }
          ++to;
        }
      }
    });
    block.phase([&](int t) {
      if (t > 0) return;
      const uint32_t count = fill[0] < kKept ? fill[0] : kKept;
      fill[1] = count ? block.atomic_add(found + row, count) : 0;
      fill[0] = count;
    });
    block.phase([&](int t) {
      const uint32_t count = fill[0], first = fill[1];
      for (uint32_t i = t; i < count; i += kThreads) list[first + i] = kept[i];
    });
  }

  GAG_BODY static uint32_t ones(uint32_t x) {
#if defined(__CUDACC__)
    return __popc(x);
#else
    return __builtin_popcount(x);
#endif
  }

  // Narrows every percent's prefix by the remaining bits of the keys; then the prefix is the key.
  template <typename Block, typename KeyAt>
  GAG_BODY void finish(Block& block, uint32_t row, uint32_t many, int bits, KeyAt key_at) const {
    D::each_few(percents, [&](int first, int together) {
      for (int shift = bits; shift > 0;) {
        const int width = shift < D::kDigitBits ? shift : D::kDigitBits;
        shift -= width;
        D::count(block, first, together, shift, width, 0, many, key_at);
        D::narrow(block, first, together, width);
      }
    });
    auto prefixes = block.template shared<K>(D::kPrefixes);
    block.last_phase([&](int t) {
      if (t >= percents.count) return;
      const double weight = percents.weight[t];
      A threshold = kNoThreshold<A>;
      if (weight != Percents::kNoGuide) {
        const int at = percents.first[t];
        threshold = from_key<A>(static_cast<K>(prefixes[at])) / freedom;
        if (weight != 0.0) {
          const A next = from_key<A>(static_cast<K>(prefixes[at + 1])) / freedom;
          threshold = threshold_between(threshold, next, weight);
        }
      }
      thresholds[row * threshold_stride + t] = threshold;
    });
  }
};

}  // namespace gag_fast::cuda
