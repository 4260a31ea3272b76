// The inner loops, on a block of ROWS rows of one vector each, kept in registers.
//
// For each window of taps (taps.h) the rows of the source under it are loaded once,
// each at the window's column, and multiplied with all taps of the window that need it:
//
//   window with taps at rows 0, 1:     row k of the source, loaded once
//     y[k]     += value[0] * row k
//     y[k - 1] += value[1] * row k
//
// So a window of m taps costs ROWS * m multiply-adds, but only ROWS + 3 loads. A loop
// per kind of window leaves no choice to the innermost code, which is unrolled.
//
// The gradient of the taps swaps the roles: the block is of the output's gradient, and
// each tap has a sum, a vector in memory.
//
// Rows of a block are `step` numbers apart in the source: a row of the image, or, where
// it has only one, the next vector along it.
#pragma once

#include "job.h"
#include "vectors.h"

namespace {

using dcls::KINDS;
using dcls::span_of;
using dcls::Taps;

// Where a block's pixels are, in the planes of one source.
struct Pixels {
  const float *data;  // the block's first pixel under tap (0, 0) of the box
  int64_t stride;     // between rows of the image
  int64_t step;       // between rows of the block
  int64_t origin;     // offset of tap (0, 0) of the box from tap (0, 0) of the kernel

  const float *under(dcls::Place tap) const {
    return data + (tap.row * stride + tap.column - origin);
  }
};

template <int L, int R, int KIND>
INLINE void convolve_kind(Vector<L> (&sums)[R], Pixels pixels, const Taps &taps) {
  constexpr unsigned mask = dcls::mask_of(KIND);
  const int64_t end = taps.first[KIND + 1];
  for (int64_t i = taps.first[KIND]; i < end; ++i) {
    const float *from = pixels.under(taps.places[i]);
    Vector<L> values[dcls::WINDOW_ROWS];
    unroll<dcls::WINDOW_ROWS>([&](auto t) INLINE_LAMBDA {
      values[t.value] = broadcast<L>(taps.values[i].rows[t.value]);
    });
    unroll<R + span_of(KIND) - 1>([&](auto k) INLINE_LAMBDA {
      const Vector<L> row = load<L>(from);
      from += pixels.step;
      unroll<span_of(KIND)>([&](auto t) INLINE_LAMBDA {
        constexpr int y = k.value - t.value;
        if constexpr ((mask >> t.value & 1) && y >= 0 && y < R)
          sums[y] += values[t.value] * row;
      });
    });
  }
}

// Writes a block of the target: a start plus, for each source plane, its taps.
template <int L, int R>
void convolve_block(Pixels pixels, const Taps *taps, int64_t sources, int64_t plane,
                    float start, float *to, int64_t to_step) {
  Vector<L> sums[R];
  unroll<R>([&](auto k) INLINE_LAMBDA { sums[k.value] = broadcast<L>(start); });
  for (; sources > 0; --sources, ++taps, pixels.data += plane) {
    convolve_kind<L, R, 0>(sums, pixels, *taps);
    convolve_kind<L, R, 1>(sums, pixels, *taps);
    convolve_kind<L, R, 2>(sums, pixels, *taps);
    convolve_kind<L, R, 3>(sums, pixels, *taps);
    convolve_kind<L, R, 4>(sums, pixels, *taps);
    convolve_kind<L, R, 5>(sums, pixels, *taps);
    convolve_kind<L, R, 6>(sums, pixels, *taps);
    convolve_kind<L, R, 7>(sums, pixels, *taps);
  }
  unroll<R>([&](auto k)
                INLINE_LAMBDA { store<L>(to + k.value * to_step, sums[k.value]); });
}

// Adds to the sums of a kind's taps; returns where those of the next kind begin. Each
// sum has LANES numbers, of which narrow blocks use the first.
template <int L, int R, int KIND>
INLINE float *correlate_kind(const Vector<L> (&gradient)[R], Pixels pixels,
                             const Taps &taps, float *sums) {
  constexpr unsigned mask = dcls::mask_of(KIND);
  const int64_t end = taps.first[KIND + 1];
  for (int64_t i = taps.first[KIND]; i < end; ++i) {
    const float *from = pixels.under(taps.places[i]);
    // Few taps have two sums each, as an addition has to wait for the one before.
    constexpr int parts_each = __builtin_popcount(mask) > 2 ? 1 : 2;
    Vector<L> parts[4][2] = {};
    unroll<R + span_of(KIND) - 1>([&](auto k) INLINE_LAMBDA {
      const Vector<L> row = load<L>(from);
      from += pixels.step;
      unroll<span_of(KIND)>([&](auto t) INLINE_LAMBDA {
        constexpr int y = k.value - t.value;
        if constexpr ((mask >> t.value & 1) && y >= 0 && y < R)
          parts[t.value][y % parts_each] += gradient[y] * row;
      });
    });
    unroll<span_of(KIND)>([&](auto t) INLINE_LAMBDA {
      if constexpr (mask >> t.value & 1) {
        store<L>(sums, load<L>(sums) + (parts[t.value][0] + parts[t.value][1]));
        sums += LANES;
      }
    });
  }
  return sums;
}

// Adds what a block of the output's gradient gives to the sums of the taps, and after
// these to that of the bias.
template <int L, int R>
void correlate_block(const Pixels &pixels, const Taps &taps, const float *gradient,
                     int64_t gradient_step, float *sums) {
  Vector<L> block[R];
  unroll<R>([&](auto k) INLINE_LAMBDA {
    block[k.value] = load<L>(gradient + k.value * gradient_step);
  });
  sums = correlate_kind<L, R, 0>(block, pixels, taps, sums);
  sums = correlate_kind<L, R, 1>(block, pixels, taps, sums);
  sums = correlate_kind<L, R, 2>(block, pixels, taps, sums);
  sums = correlate_kind<L, R, 3>(block, pixels, taps, sums);
  sums = correlate_kind<L, R, 4>(block, pixels, taps, sums);
  sums = correlate_kind<L, R, 5>(block, pixels, taps, sums);
  sums = correlate_kind<L, R, 6>(block, pixels, taps, sums);
  sums = correlate_kind<L, R, 7>(block, pixels, taps, sums);
  Vector<L> total = block[0];
  unroll<R - 1>([&](auto k) INLINE_LAMBDA { total += block[k.value + 1]; });
  store<L>(sums, load<L>(sums) + total);
}

}  // namespace
