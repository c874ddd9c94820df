// Order statistics of a row by the digits of its keys: exact radix selection on integers, no sort,
// the same answer in whatever order threads and blocks run. What selection.h's kernels share.
// Torch-free; see block.h for how they are written.
#pragma once

#include <cstdint>

#include "cuda/block.h"
#include "cuda/stack.h"
#include "cuda/statistics.h"
#include "math/percentile.h"

namespace gag_fast::cuda {

inline constexpr int kMostPercents = 64;              // per launch
inline constexpr int kMostRanks = 2 * kMostPercents;  // order statistics wanted by them

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

// The wanted order statistics of one row, and how far a block knows them: in shared memory each has
// a prefix, its key's upper bits, and its rank among the keys with that prefix.
template <typename A, int kThreads>
struct Digits {
  using K = Key<A>;

  static constexpr int kDigitBits = 10;
  static constexpr int kBins = 1 << kDigitBits;
  static constexpr int kChunk = 32;    // bins that one thread adds up
  static constexpr int kTogether = 8;  // ranks whose histograms are made in one go
  static constexpr int kRestBits = KeyOf<A>::bits - kFirstDigitBits;
  static constexpr int kInFlight = 8;

  // Shared memory. The scratch is in turn the row's first-digit counts, the candidates a block has
  // kept, and the histograms of the later digits.
  static constexpr int kScratchBytes = kTogether * kBins * 4;
  static constexpr int kPrefixes = kScratchBytes;
  static constexpr int kRanks = kPrefixes + kMostRanks * 8;
  static constexpr int kSums = kRanks + kMostRanks * 4;
  static constexpr int kWanted = kSums + kTogether * (kBins / kChunk) * 4;
  static constexpr int kEnd = kWanted + kFirstBins / 8;
  static_assert(kFirstBins * 4 <= kScratchBytes);
  static_assert(kMostRanks <= kThreads && kMostRanks <= 256 &&
                kTogether * (kBins / kChunk) <= kThreads);
  static_assert(kFirstBins / kChunk <= kTogether * (kBins / kChunk));

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

  // Calls body(first rank, how many) for a few ranks after another.
  template <typename Body>
  GAG_BODY static void each_few(const Percents& percents, Body body) {
    for (int first = 0; first < percents.ranks; first += kTogether) {
      body(first, percents.ranks - first < kTogether ? percents.ranks - first : kTogether);
    }
  }

  // The first digit of every rank, from the row's counts, and a bit for each bin that is wanted.
  template <bool kFresh, typename Block>
  GAG_BODY static void find_first(Block& block, const Percents& percents,
                                  Global<const uint32_t> histogram) {
    auto counts = block.template shared<uint32_t>(0);
    auto sums = block.template shared<uint32_t>(kSums);
    auto wanted = block.template shared<uint32_t>(kWanted);
    auto prefixes = block.template shared<K>(kPrefixes);
    auto ranks = block.template shared<uint32_t>(kRanks);
    block.phase([&](int t) {
      for (int i = t; i < kFirstBins; i += kThreads) {
        counts[i] = read_one<kFresh>(block, histogram + i);
      }
      if (t < kFirstBins / 32) wanted[t] = 0;
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

  // For each of `together` ranks from `first` on: counts the digits of `width` bits above `shift` of
  // the keys key_at(begin .. end - 1) that have its prefix.
  template <typename Block, typename KeyAt>
  GAG_BODY static void count(Block& block, int first, int together, int shift, int width,
                             uint32_t begin, uint32_t end, KeyAt key_at) {
    auto counts = block.template shared<uint32_t>(0);
    auto prefixes = block.template shared<K>(kPrefixes);
    block.phase([&](int t) {
      for (int i = t; i < together * kBins; i += kThreads) counts[i] = 0;
    });
    block.phase([&](int t) {
      // Loads in flight are all that hides the memory's delay.
      for (uint32_t i = begin + t; i < end; i += kInFlight * kThreads) {
        K keys[kInFlight];
        GAG_UNROLL
        for (int u = 0; u < kInFlight; ++u) {
          const uint32_t at = i + u * kThreads;
          keys[u] = key_at(at < end ? at : i);
        }
        GAG_UNROLL
        for (int u = 0; u < kInFlight; ++u) {
          if (i + u * kThreads >= end) break;
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
  }

  // Appends to the prefix of each rank the digit of `width` bits that the counts give it.
  template <typename Block>
  GAG_BODY static void narrow(Block& block, int first, int together, int width) {
    auto counts = block.template shared<uint32_t>(0);
    auto sums = block.template shared<uint32_t>(kSums);
    auto prefixes = block.template shared<K>(kPrefixes);
    auto ranks = block.template shared<uint32_t>(kRanks);
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
};

// Which pixels of a row a block reads, of `parts` blocks.
struct Piece {
  uint32_t begin, end;
};

GAG_BODY Piece piece_of(uint32_t part, uint32_t parts, uint32_t pixels) {
  const uint32_t length = (pixels - 1) / parts + 1;
  const uint32_t begin = part * length;
  return {begin, begin + length < pixels ? begin + length : pixels};
}

}  // namespace gag_fast::cuda
