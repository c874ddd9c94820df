// Kernel that finds, for every row and percent, the threshold of the guide: one order statistic of
// the variance, or in a close call two (math/percentile.h). Exact radix selection on integer keys:
// no sort, the same answer in whatever order threads and blocks run. Torch-free; see block.h for
// how it is written.
//
// Long rows: the statistics kernel has counted the first digits, so each block knows for each
// rank which of 2048 bins its order statistic is in. The row's blocks read the row once (from
// the L2 cache, where it was just written) and keep the keys in those bins, a few percent of the
// row: the candidates. The last block to finish a row selects among the candidates, ten bits at a
// time. Short rows are their own candidates.
#pragma once

#include <cstdint>

#include "cuda/block.h"
#include "cuda/statistics.h"
#include "math/percentile.h"

namespace gag_fast::cuda {

inline constexpr int kMostPercents = 64;              // per launch
inline constexpr int kMostRanks = 2 * kMostPercents;  // order statistics wanted by them
inline constexpr int64_t kShortRow = 8192;

// p = 0: the guide is 1 whatever the variance. Told to the kernels that follow by a threshold that
// no variance has.
template <typename A>
inline constexpr A kNoThreshold = A(-1);

// Launch parameter: the percents, and the order statistics that decide them (math/percentile.h).
struct Percents {
  static constexpr double kNoGuide = -1.0;

  int count, ranks;
  uint32_t rank[kMostRanks];     // places in ascending order, from 0
  uint8_t first[kMostPercents];  // of a percent, its place in `rank`
  double weight[kMostPercents];  // kNoGuide for p = 0; 0: that order statistic; else the percentile
                                 // lies this far from it to the next one in `rank`

  template <typename A>
  void add(double p, int64_t pixels) {
    const PercentilePlace place = percentile_place(p, pixels);
    const bool both = close_call<A>(place);
    first[count] = static_cast<uint8_t>(ranks);
    weight[count++] = p == 0.0 ? kNoGuide : both ? place.weight : 0.0;
    if (p == 0.0) return;
    if (both) rank[ranks++] = static_cast<uint32_t>(place.below);
    rank[ranks++] = static_cast<uint32_t>(place.above());
  }
};

template <typename A>
struct Selection {
  using K = Key<A>;
  static constexpr int kThreads = 512;
  static constexpr int kBlocksPerMultiprocessor = 2;

  static constexpr int kDigitBits = 10;
  static constexpr int kBins = 1 << kDigitBits;
  static constexpr int kChunk = 32;    // bins that one thread adds up
  static constexpr int kTogether = 8;  // ranks whose histograms are made in one go
  static constexpr int kRestBits = KeyOf<A>::bits - kFirstDigitBits;
  static constexpr int kInFlight = 8;

  // Shared memory. The scratch is in turn the row's first-digit counts, the candidates a block has
  // kept, and the histograms of the later digits.
  static constexpr int kScratchBytes = kTogether * kBins * 4;
  static constexpr int kKept = kScratchBytes / static_cast<int>(sizeof(K));
  static constexpr int kPrefixes = kScratchBytes;
  static constexpr int kRanks = kPrefixes + kMostRanks * 8;
  static constexpr int kSums = kRanks + kMostRanks * 4;
  static constexpr int kWanted = kSums + kTogether * (kBins / kChunk) * 4;
  static constexpr int kFill = kWanted + kFirstBins / 8;
  static constexpr int kAnswer = kFill + 8;
  static constexpr int kSharedBytes = kAnswer + 4;
  static_assert(kSharedBytes <= kMostShared);
  static_assert(kFirstBins * 4 <= kScratchBytes);
  static_assert(kMostRanks <= kThreads && kMostRanks <= 256 &&
                kTogether * (kBins / kChunk) <= kThreads);
  static_assert(kFirstBins / kChunk <= kTogether * (kBins / kChunk));

  Global<const A> m2;                // [rows, pixels]
  Global<const uint32_t> histogram;  // [rows, kFirstBins]; null: short rows
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

  template <typename Block>
  GAG_BODY void operator()(Block& block) const {
    const uint32_t row = block.index() / parts;
    const int64_t base = static_cast<int64_t>(row) * pixels;
    auto prefixes = block.template shared<K>(kPrefixes);
    auto ranks = block.template shared<uint32_t>(kRanks);

    if (!histogram) {
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
    find_first_digits(block, row);
    keep_candidates(block, row);
    if (!arrive(block, arrived + row, parts, kAnswer)) return;
    const auto list = candidates + base;
    finish(block, row, block.fresh(found + row), kRestBits,
           [&](uint32_t i) { return block.fresh(list + i); });
  }

 private:
  // Which bin holds the element of rank `rank` (0 = smallest) of those counted; leaves in `rank`
  // its rank within the bin. No early exit, so the reads of shared memory overlap.
  template <typename Counts, typename Sums>
  GAG_BODY static uint32_t bin_of(Counts counts, Sums sums, int chunks, uint32_t& rank) {
    uint32_t before = 0, seen = 0;
    int chunk = 0;
    for (int i = 0; i < chunks - 1; ++i) {
      seen += sums[i];
      if (seen <= rank) chunk = i + 1, before = seen;
    }
    uint32_t bin = chunk * kChunk;
    seen = before;
    for (int i = 0; i < kChunk - 1; ++i) {
      seen += counts[chunk * kChunk + i];
      if (seen <= rank) bin = chunk * kChunk + i + 1, before = seen;
    }
    rank -= before;
    return bin;
  }

  template <typename Counts>
  GAG_BODY static uint32_t chunk_sum(Counts counts, int chunk, int t) {
    uint32_t sum = 0;
    // Each thread of a warp starts at another bank.
    for (int i = 0; i < kChunk; ++i) sum += counts[chunk * kChunk + ((i + t) & (kChunk - 1))];
    return sum;
  }

  template <typename Block>
  GAG_BODY void find_first_digits(Block& block, uint32_t row) const {
    auto counts = block.template shared<uint32_t>(0);
    auto sums = block.template shared<uint32_t>(kSums);
    auto wanted = block.template shared<uint32_t>(kWanted);
    auto fill = block.template shared<uint32_t>(kFill);
    auto prefixes = block.template shared<K>(kPrefixes);
    auto ranks = block.template shared<uint32_t>(kRanks);
    block.phase([&](int t) {
      const auto from = histogram + static_cast<int64_t>(row) * kFirstBins;
      for (int i = t; i < kFirstBins; i += kThreads) counts[i] = from[i];
      if (t < kFirstBins / 32) wanted[t] = 0;
      if (t == 0) fill[0] = 0;
    });
    block.phase([&](int t) {
      if (t < kFirstBins / kChunk) sums[t] = chunk_sum(counts, t, t);
    });
    block.phase([&](int t) {
      if (t >= percents.ranks) return;
      uint32_t rank = percents.rank[t];
      const uint32_t bin = bin_of(counts, sums, kFirstBins / kChunk, rank);
      prefixes[t] = bin;
      ranks[t] = rank;
      block.atomic_or(wanted + bin / 32, 1u << (bin % 32));
    });
  }

  // The block's part of the row: keys in wanted bins go to the row's candidates, in no particular
  // order. They gather in shared memory first; what does not fit there (many ties, many percents)
  // goes straight to the list.
  template <typename Block>
  GAG_BODY void keep_candidates(Block& block, uint32_t row) const {
    auto kept = block.template shared<K>(0);
    auto wanted = block.template shared<uint32_t>(kWanted);
    auto fill = block.template shared<uint32_t>(kFill);
    const auto from = m2 + static_cast<int64_t>(row) * pixels;
    const auto list = candidates + static_cast<int64_t>(row) * pixels;
    const uint32_t length = (pixels - 1) / parts + 1;
    const uint32_t begin = block.index() % parts * length;
    const uint32_t end = begin + length < pixels ? begin + length : pixels;

    block.phase([&](int t) {
      for (uint32_t i = begin + t; i < end; i += kInFlight * kThreads) {
        K keys[kInFlight];
        GAG_UNROLL
        for (int u = 0; u < kInFlight; ++u) {
          const uint32_t at = i + u * kThreads;
          keys[u] = at < end ? order_key(static_cast<A>(from[at])) : 0;
        }
        uint32_t matches = 0;
        GAG_UNROLL
        for (int u = 0; u < kInFlight; ++u) {
          const uint32_t bin = first_digit<A>(keys[u]);
          const uint32_t hit = (wanted[bin / 32] >> (bin % 32)) & 1u;
          if (i + u * kThreads < end) matches |= hit << u;
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
    auto counts = block.template shared<uint32_t>(0);
    auto sums = block.template shared<uint32_t>(kSums);
    auto prefixes = block.template shared<K>(kPrefixes);
    auto ranks = block.template shared<uint32_t>(kRanks);
    for (int first = 0; first < percents.ranks; first += kTogether) {
      const int together = percents.ranks - first < kTogether ? percents.ranks - first : kTogether;
      for (int shift = bits; shift > 0;) {
        const int width = shift < kDigitBits ? shift : kDigitBits;
        shift -= width;
        block.phase([&](int t) {
          for (int i = t; i < together * kBins; i += kThreads) counts[i] = 0;
        });
        block.phase([&](int t) {
          // One block walks all candidates: loads in flight are all that hides the memory's delay.
          for (uint32_t i = t; i < many; i += kInFlight * kThreads) {
            K keys[kInFlight];
            GAG_UNROLL
            for (int u = 0; u < kInFlight; ++u) {
              const uint32_t at = i + u * kThreads;
              keys[u] = key_at(at < many ? at : i);
            }
            GAG_UNROLL
            for (int u = 0; u < kInFlight; ++u) {
              if (i + u * kThreads >= many) break;
              const uint32_t digit = static_cast<uint32_t>(keys[u] >> shift) & ((1u << width) - 1);
              const K prefix = keys[u] >> (shift + width);
              for (int g = 0; g < together; ++g) {
                if (prefix == prefixes[first + g]) {
                  block.atomic_add(counts + (g * kBins + digit), 1u);
                }
              }
            }
          }
        });
        block.phase([&](int t) {
          if (t < together * (kBins / kChunk)) sums[t] = chunk_sum(counts, t, t);
        });
        block.phase([&](int t) {
          if (t >= together) return;
          uint32_t rank = ranks[first + t];
          const uint32_t digit =
              bin_of(counts + t * kBins, sums + t * (kBins / kChunk), kBins / kChunk, rank);
          prefixes[first + t] = (prefixes[first + t] << width) | digit;
          ranks[first + t] = rank;
        });
      }
    }
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
