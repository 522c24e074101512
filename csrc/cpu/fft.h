// Fourier transforms of BATCH sequences side by side (fft.cpp), and of images in two such steps.
//
// A cell is one element of BATCH sequences: BATCH real parts, then BATCH imaginary ones, so a butterfly is vector arithmetic
// with no shuffle. A plane is an image as its row transform wants it: panels of BATCH rows, a cell for each column of them; the
// column transform takes BATCH columns at a time out of the panels and puts them back.
#pragma once

#include <cstring>
#include <vector>

#include "wide_lanes.h"

namespace alps::ALPS_ISA {

constexpr int BATCH = 16;
constexpr int CELL = 2 * BATCH;
static_assert(BATCH % Wide::width == 0, "a batch is whole vectors");

struct Fourier {  // the transform of n numbers
  int64_t n;
  std::vector<int> radices;
  std::vector<float> roots;  // exp(-2 pi i k / n)
};

const Fourier& fourier(int64_t n);  // made once a process and size

// The transform of n cells that lie in `a`, not normalised; returns the buffer that holds it, `a` where `in_place`, else `b`.
float* transform(const Fourier& plan, float* a, float* b, bool inverse);

ALPS_INLINE bool in_place(const Fourier& plan) { return plan.radices.size() % 2 == 0; }

struct Columns {  // the columns of a plane that are transformed together; -1: none
  int32_t index[BATCH];
};

// cells[h] <- columns of a plane whose panel p begins at plane + p * panel; `padded` rows, a multiple of BATCH
inline void take_columns(const float* plane, int64_t panel, const Columns& columns, int64_t padded, float* cells) {
  alignas(64) static constexpr float nothing[BATCH] = {};
  for (int64_t first = 0; first < padded; first += BATCH, plane += panel)
    for (int part = 0; part < CELL; part += BATCH)
      transpose<BATCH>([&](int i) { return columns.index[i] >= 0 ? plane + columns.index[i] * CELL + part : nothing; },
                       [&](int j) { return cells + (first + j) * CELL + part; });
}

inline void give_columns(const float* cells, int64_t padded, const Columns& columns, float* plane, int64_t panel) {
  alignas(64) float unused[BATCH];
  for (int64_t first = 0; first < padded; first += BATCH, plane += panel)
    for (int part = 0; part < CELL; part += BATCH)
      transpose<BATCH>([&](int j) { return cells + (first + j) * CELL + part; },
                       [&](int i) { return columns.index[i] >= 0 ? plane + columns.index[i] * CELL + part : unused; });
}

// BATCH rows of an image, one after the other, into the cells of a panel and out of them: cell[e] is where number e of a row
// goes. A row past the last one of the image may hold anything.
inline void to_cells(const std::vector<int64_t>& cell, const float* rows, float* cells) {
  const int64_t row = static_cast<int64_t>(cell.size());
  for (int64_t e = 0; e < row; e += BATCH) {
    alignas(64) float unused[BATCH];
    const int64_t count = row - e < BATCH ? row - e : BATCH, *at = cell.data() + e;
    transpose<BATCH>([&](int i) { return rows + i * row + e; }, [&](int j) { return j < count ? cells + at[j] : unused; });
  }
}

inline void from_cells(const std::vector<int64_t>& cell, const float* cells, float* rows) {
  const int64_t row = static_cast<int64_t>(cell.size());
  for (int64_t e = 0; e < row; e += BATCH) {
    alignas(64) float some[BATCH][BATCH];
    const int64_t count = row - e < BATCH ? row - e : BATCH, *at = cell.data() + e;
    transpose<BATCH>([&](int j) { return cells + at[j < count ? j : 0]; },
                     [&](int i) { return count == BATCH ? rows + i * row + e : some[i]; });
    for (int i = 0; count < BATCH && i < BATCH; ++i)
      std::memcpy(rows + i * row + e, some[i], sizeof(float) * static_cast<size_t>(count));
  }
}

}  // namespace alps::ALPS_ISA
