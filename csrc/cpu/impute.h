// Missing pixels as the weighted mean of their eight neighbours: a sparse system, solved. Torch-free.
//
// Conjugate gradients, one channel at a time, with a multigrid cycle in place of the inverse:
//
//   finest grid     unknown pixels alone; row i of the system is d_i x_i - sum_j w_ij x_j, with
//                   w = 1/6 beside and above, 1/12 at the corners, and d_i the sum of those that
//                   exist. The weights but for the middle are (k k' - 4) / 12 with k = (1, 2, 1).
//   coarser grids   half as many points a side, bilinear between them. The same weights (in two
//                   dimensions they do not depend on the distance of the points), and on the
//                   diagonal, spread from the finer grid, what ties its points to known pixels.
//   smoothing       one step of Jacobi before and one after: on this stencil it leaves at most a
//                   third of every part that the coarser grid cannot see.
//
// Seven or eight rounds bring the error below a hundred thousandth of that of no answer, whatever
// the holes: 5 ms for 3 x 224 x 224. A direct sparse solver takes minutes where four fifths of the
// pixels are missing here and there: the factors fill in.
#pragma once

#include <cstdint>

namespace gag_fast {

constexpr int64_t kImputeGrids = 32;  // more than any image's sides can be halved
constexpr int64_t kLanes = 16;        // partial sums of a scalar product

struct ImputeSize {
  int64_t channels, height, width;
};

struct Grid {
  int64_t height, width;
  float* diagonal;  // all [(height + 2), (width + 2)], with a border of zeros
  float* inverse;   // of the diagonal, 0 where no unknown pixel is near
  float* error;
  float* right;
  float* rest;

  int64_t stride() const { return width + 2; }
  int64_t size() const { return (height + 2) * stride(); }
  int64_t row(int64_t y) const { return (y + 1) * stride(); }  // its first element, of the border
};

struct Grids {
  Grid grid[kImputeGrids];
  int64_t count;
  float* sums;  // two rows, as wide as the widest
};

// sums[i] = weighted sum of a column of three, border included.
inline void columns(const float* here, int64_t stride, float* __restrict sums) {
  const float *above = here - stride, *below = here + stride;
  for (int64_t i = 0; i < stride; ++i) sums[i] = above[i] + 2.0f * here[i] + below[i];
}

inline float neighbours(const float* sums, const float* here, int64_t i) {
  const float all = sums[i - 1] + 2.0f * sums[i] + sums[i + 1];
  return (all - 4.0f * here[i]) * (1.0f / 12.0f);
}

// out = the weighted sum of the neighbours of x, where there is something unknown.
inline void sum_neighbours(const Grid& g, const float* x, float* sums, float* out) {
  for (int64_t y = 0; y < g.height; ++y) {
    const int64_t at = g.row(y);
    columns(x + at, g.stride(), sums);
    const float* inverse = g.inverse + at;
    float* __restrict to = out + at;
    for (int64_t i = 1; i <= g.width; ++i) {
      const float found = neighbours(sums, x + at, i);
      to[i] = inverse[i] > 0.0f ? found : 0.0f;
    }
  }
}

// out = A x.
inline void multiply(const Grid& g, const float* x, float* sums, float* out) {
  sum_neighbours(g, x, sums, out);
  for (int64_t i = 0; i < g.size(); ++i) out[i] = g.diagonal[i] * x[i] - out[i];
}

// out = x + (right - A x) / diagonal: a step of Jacobi.
inline void smooth(const Grid& g, const float* x, float* sums, float* out) {
  for (int64_t y = 0; y < g.height; ++y) {
    const int64_t at = g.row(y);
    columns(x + at, g.stride(), sums);
    const float *inverse = g.inverse + at, *right = g.right + at;
    float* __restrict to = out + at;
    for (int64_t i = 1; i <= g.width; ++i) {
      to[i] = inverse[i] * (right[i] + neighbours(sums, x + at, i));
    }
  }
}

// The transpose of `prolong`.
inline void restrict_to(const Grid& coarse, const Grid& fine, const float* from, float* sums,
                        float* out) {
  const int64_t stride = fine.stride();
  for (int64_t y = 0; y < coarse.height; ++y) {
    const float* here = from + fine.row(2 * y);
    const bool last = 2 * y + 2 == fine.height;  // the row below has no other to lean on
    const float weight = last ? 1.0f : 0.5f;
    const float *above = here - stride, *below = 2 * y + 1 < fine.height ? here + stride : here;
    const float below_weight = 2 * y + 1 < fine.height ? weight : 0.0f;
    for (int64_t i = 0; i < stride; ++i) {
      sums[i] = here[i] + 0.5f * above[i] + below_weight * below[i];
    }
    float* __restrict to = out + coarse.row(y) + 1;
    for (int64_t x = 0; x < coarse.width; ++x) {
      to[x] = sums[2 * x + 1] + 0.5f * (sums[2 * x] + sums[2 * x + 2]);
    }
    if (fine.width % 2 == 0) to[coarse.width - 1] += 0.5f * sums[fine.width];
  }
}

// error of the finer grid += that of the coarser one, bilinear between its points.
inline void prolong(const Grid& coarse, const Grid& fine, float* sums) {
  for (int64_t y = 0; y < fine.height; ++y) {
    const float* here = coarse.error + coarse.row(y / 2);
    const bool between = y % 2 == 1 && y / 2 + 1 < coarse.height;
    const float* other = between ? here + coarse.stride() : here;
    for (int64_t i = 0; i < coarse.stride(); ++i) sums[i] = 0.5f * (here[i] + other[i]);
    sums[coarse.width + 1] = sums[coarse.width];
    const float* inverse = fine.inverse + fine.row(y) + 1;
    float* __restrict to = fine.error + fine.row(y) + 1;
    const int64_t pairs = fine.width / 2;
    for (int64_t x = 0; x < pairs; ++x) {
      const float even = sums[x + 1], odd = 0.5f * (sums[x + 1] + sums[x + 2]);
      to[2 * x] += inverse[2 * x] > 0.0f ? even : 0.0f;
      to[2 * x + 1] += inverse[2 * x + 1] > 0.0f ? odd : 0.0f;
    }
    if (fine.width % 2 == 1) {
      const int64_t x = fine.width - 1;
      to[x] += inverse[x] > 0.0f ? sums[x / 2 + 1] : 0.0f;
    }
  }
}

// error = about A^-1 right, of grid number `level`: symmetric, as conjugate gradients want it.
inline void cycle(const Grids& all, int64_t level) {
  Grid g = all.grid[level];
  for (int64_t i = 0; i < g.size(); ++i) g.error[i] = g.inverse[i] * g.right[i];
  if (level + 1 == all.count) {
    for (int turn = 0; turn < 8; ++turn) {
      smooth(g, g.error, all.sums, g.rest);
      smooth(g, g.rest, all.sums, g.error);
    }
    return;
  }
  const Grid& coarse = all.grid[level + 1];
  // After that step of Jacobi from zero, what is left is the neighbours' sum.
  sum_neighbours(g, g.error, all.sums, g.rest);
  restrict_to(coarse, g, g.rest, all.sums, coarse.right);
  cycle(all, level + 1);
  prolong(coarse, g, all.sums);
  smooth(g, g.error, all.sums, g.rest);
  for (int64_t i = 0; i < g.size(); ++i) g.error[i] = g.rest[i];
}

inline double dot(const float* a, const float* b, int64_t n) {
  double total = 0.0;
  for (int64_t first = 0; first < n; first += 64 * kLanes) {
    float lanes[kLanes] = {};
    const int64_t stop = first + 64 * kLanes < n ? first + 64 * kLanes : n;
    int64_t i = first;
    for (; i + kLanes <= stop; i += kLanes) {
      for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
    }
    for (; i < stop; ++i) lanes[(i - first) % kLanes] += a[i] * b[i];
    for (int64_t lane = 0; lane < kLanes; ++lane) total += lanes[lane];
  }
  return total;
}

// The sum of the weights of a point's neighbours that exist.
inline float weights(const Grid& g, int64_t y, int64_t x) {
  const int64_t rows = (y > 0) + (y + 1 < g.height), columns = (x > 0) + (x + 1 < g.width);
  return static_cast<float>(2 * (rows + columns) + rows * columns) / 12.0f;
}

// Diagonals of the finest grid, and in `rest` what ties its points to known pixels.
inline void finest(const Grid& g, const uint8_t* missing, float* sums) {
  for (int64_t i = 0; i < g.size(); ++i) g.error[i] = g.inverse[i] = g.diagonal[i] = 0.0f;
  for (int64_t y = 0; y < g.height; ++y) {
    for (int64_t x = 0; x < g.width; ++x) {
      const int64_t at = g.row(y) + x + 1;
      const bool unknown = missing[y * g.width + x] != 0;
      g.error[at] = unknown ? 0.0f : 1.0f;
      g.diagonal[at] = unknown ? weights(g, y, x) : 0.0f;
      g.inverse[at] = unknown && g.diagonal[at] > 0.0f ? 1.0f / g.diagonal[at] : 0.0f;
    }
  }
  sum_neighbours(g, g.error, sums, g.rest);
}

// Diagonals of a coarser grid; its `rest` like that of the finer one.
inline void coarser(const Grid& g, const Grid& fine, float* sums) {
  restrict_to(g, fine, fine.inverse, sums, g.inverse);
  restrict_to(g, fine, fine.rest, sums, g.rest);
  for (int64_t y = 0; y < g.height; ++y) {
    for (int64_t x = 0; x < g.width; ++x) {
      const int64_t at = g.row(y) + x + 1;
      const bool near = g.inverse[at] > 0.0f;
      g.diagonal[at] = near ? weights(g, y, x) + g.rest[at] : 0.0f;
      g.inverse[at] = near && g.diagonal[at] > 0.0f ? 1.0f / g.diagonal[at] : 0.0f;
    }
  }
}

// The grids in a piece of zeroed memory; returns what is left of it.
inline float* lay_out(Grids& all, int64_t height, int64_t width, float* memory) {
  all.sums = memory;
  memory += 2 * (width + 2);
  all.count = 0;
  while (true) {
    Grid& g = all.grid[all.count++];
    g.height = height;
    g.width = width;
    float** const parts[] = {&g.diagonal, &g.inverse, &g.error, &g.right, &g.rest};
    for (float** part : parts) {
      *part = memory;
      memory += g.size();
    }
    if ((height <= 4 && width <= 4) || all.count == kImputeGrids) return memory;
    height = (height + 1) / 2;
    width = (width + 1) / 2;
  }
}

// Solves for one channel; x holds the known pixels, zeros elsewhere, and receives the others.
inline void solve(const Grids& all, float* x, float* step, float* image, float tolerance,
                  int rounds) {
  const Grid& g = all.grid[0];
  const int64_t n = g.size();
  float* left = g.right;  // what is left of the right-hand side
  sum_neighbours(g, x, all.sums, left);
  double power = 0.0, first = 0.0;
  for (int round = 0; round < rounds; ++round) {
    cycle(all, 0);
    const double now = dot(left, g.error, n);
    if (round == 0) first = now;
    if (!(now > first * tolerance * tolerance)) return;
    const float turn = round == 0 ? 0.0f : static_cast<float>(now / power);
    power = now;
    for (int64_t i = 0; i < n; ++i) step[i] = g.error[i] + turn * step[i];
    multiply(g, step, all.sums, image);
    const float rate = static_cast<float>(power / dot(step, image, n));
    for (int64_t i = 0; i < n; ++i) {
      x[i] += rate * step[i];
      left[i] -= rate * image[i];
    }
  }
}

// Floats of working memory: five maps on every grid and three more on the finest, all with their
// borders, and two rows.
inline int64_t impute_memory(ImputeSize size) {
  int64_t total = 2 * (size.width + 2) + 3 * (size.height + 2) * (size.width + 2);
  int64_t height = size.height, width = size.width;
  for (int64_t grid = 0; grid < kImputeGrids; ++grid) {
    total += 5 * (height + 2) * (width + 2);
    height = (height + 1) / 2;
    width = (width + 1) / 2;
  }
  return total;
}

// Writes pixels [C, H, W] with those filled in where `missing` [H, W] is not 0.
//   memory: impute_memory(size) floats, zeroed.
//   tolerance: error that may be left, in the energy norm, as a part of that of no answer at all.
inline void fill_in(const float* pixels, const uint8_t* missing, ImputeSize size, float tolerance,
                    int rounds, float* memory, float* out) {
  Grids all;
  float* x = lay_out(all, size.height, size.width, memory);
  const Grid& g = all.grid[0];
  float *step = x + g.size(), *image = step + g.size();
  finest(g, missing, all.sums);
  for (int64_t level = 1; level < all.count; ++level) {
    coarser(all.grid[level], all.grid[level - 1], all.sums);
  }
  const int64_t plane = size.height * size.width;
  for (int64_t c = 0; c < size.channels; ++c) {
    const float* from = pixels + c * plane;
    for (int64_t y = 0; y < size.height; ++y) {
      for (int64_t i = 0; i < size.width; ++i) {
        const bool unknown = missing[y * size.width + i] != 0;
        x[g.row(y) + i + 1] = unknown ? 0.0f : from[y * size.width + i];
      }
    }
    for (int64_t i = 0; i < g.size(); ++i) step[i] = 0.0f;
    solve(all, x, step, image, tolerance, rounds);
    for (int64_t y = 0; y < size.height; ++y) {
      for (int64_t i = 0; i < size.width; ++i) {
        out[c * plane + y * size.width + i] = x[g.row(y) + i + 1];
      }
    }
  }
}

}  // namespace gag_fast
