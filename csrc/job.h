// What direct.cpp decides once for a call, and what the kernels of each instruction set
// (kernels.cpp) then do with it, task by task.
#pragma once

#include <stdint.h>

#include "direct.h"
#include "taps.h"

namespace dcls {

// The memory of a tile of some planes: rows of `stride` numbers, of which the first
// `lead` align the image, and planes of `plane` numbers.
struct Layout {
  int64_t lead, stride, plane;
};

// A convolution of source planes to target planes. Channels come in groups that don't
// share pixels: each has `sources` planes of the source and `targets` of the target,
// one of which is 1. (Forward 1 and the multiplier; the input's gradient vice versa.)
//
// A task is a tile of some groups, a unit. It copies the tile of the source and the
// pixels around it to planes in its scratch memory, padded with zeros, where all
// further reads go: no tap needs a comparison, and the format of the image doesn't
// matter.
struct Job {
  int64_t batch, groups, sources, targets;
  int64_t height, width;  // of the source
  int64_t out_height, out_width;
  int64_t top, left;  // zeros before the source
  Box box;            // has all taps
  const dcls_image *source, *target;
  const float *bias;
  const Taps *taps;  // of each output channel of the forward pass

  int64_t unit, units;  // groups in a task; tasks over the groups
  int64_t tile_rows, tile_columns;
  int64_t tiles_down, tiles_across;
  bool line;  // images and kernels have one row: blocks lie along it
  Layout in, out;

  // The gradient of taps: sums over a chunk of the batch and its tiles. For each chunk
  // and output channel `capacity` numbers for the taps, and one for the bias.
  int64_t chunks, capacity;
  float *partial;

  int64_t tiles() const { return tiles_down * tiles_across; }
  int64_t scratch_floats() const {
    return unit * (sources * in.plane + targets * out.plane);
  }
};

// The loops, compiled for one instruction set.
struct Kernels {
  const char *name;
  int lanes;  // numbers in a vector
  int rows;   // vectors of output that are kept in registers
  void (*convolve)(const Job &job, int64_t task, float *scratch);
  // Needs memory for capacity more vectors, rounded up to lanes of them.
  void (*correlate)(const Job &job, int64_t task, float *scratch);
};

constexpr int MOST_LANES = 16;

// Null if this build has none.
extern const Kernels *const plain_kernels;
extern const Kernels *const avx2_kernels;
extern const Kernels *const avx512_kernels;

inline int64_t round_up(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

}  // namespace dcls
