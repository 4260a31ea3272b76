// Copies between images of any memory format and float32 planes in scratch memory.
//
// Where columns are consecutive in memory, a row is copied as it is. Where channels are
// (channels_last), squares of LANES channels by LANES columns are transposed in
// registers. Any other memory, and channels that are left over, go one by one.
#pragma once

#include "job.h"
#include "vectors.h"

namespace {

using dcls::Layout;

// A rectangle of an image, which may reach beyond it.
struct Region {
  int64_t row, column, rows, columns;
};

// The channels first ... first + count of one image of the batch.
struct Slice {
  int64_t batch, first, count;
};

INLINE void zero(float *to, int64_t count) {
  if (count > 0) memset(to, 0, size_t(count) * sizeof(float));
}

// Copies `columns` numbers; the rest of the last vector may be overwritten with zeros
// or with what it was.
template <class T>
INLINE void copy_row(const T *from, int64_t step, float *to, int64_t columns) {
  int64_t i = 0;
  if (step == 1)
    for (; i + LANES <= columns; i += LANES)
      store<LANES>(to + i, load<LANES>(from + i));
  for (; i < columns; ++i) to[i] = load_one(from + i * step);
}

template <class T>
INLINE void transpose_row(const T *from, int64_t step, float *to, int64_t plane,
                          int64_t columns) {
  for (int64_t i = 0; i < columns; i += LANES, from += LANES * step) {
    Vector<LANES> square[LANES];
    if (i + LANES <= columns) {
      unroll<LANES>([&](auto l) INLINE_LAMBDA {
        square[l.value] = load<LANES>(from + l.value * step);
      });
    } else {
      for (int l = 0; l < LANES; ++l)
        square[l] = l < columns - i ? load<LANES>(from + l * step) : Vector<LANES>{};
    }
    transpose(square);
    unroll<LANES>([&](auto l) INLINE_LAMBDA {
      store<LANES>(to + l.value * plane + i, square[l.value]);
    });
  }
}

// Fills planes with a region of the image and zeros around it. A row of a plane has
// room for region.columns rounded up to LANES, after layout.lead.
template <class T>
void load_planes_of(const dcls_image &image, int64_t height, int64_t width, Slice slice,
                    Region region, float *planes, Layout layout) {
  const int64_t start = region.column < 0 ? -region.column : 0;
  int64_t end = width - region.column;
  if (end > region.columns) end = region.columns;
  const T *data = static_cast<const T *>(image.data);
  const int64_t *strides = image.strides;
  for (int64_t r = 0; r < region.rows; ++r) {
    float *row = planes + r * layout.stride;
    const int64_t y = region.row + r;
    if (y < 0 || y >= height || start >= end) {
      for (int64_t c = 0; c < slice.count; ++c) zero(row + c * layout.plane, layout.stride);
      continue;
    }
    const T *from = data + slice.batch * strides[0] + slice.first * strides[1] +
                    y * strides[2] + (region.column + start) * strides[3];
    for (int64_t c = 0; c < slice.count; ++c) {
      float *to = row + c * layout.plane;
      zero(to, layout.lead + start);
      zero(to + layout.lead + end, layout.stride - layout.lead - end);
    }
    float *to = row + layout.lead + start;
    int64_t c = 0;
    if (strides[1] == 1 && strides[3] != 1)
      for (; c + LANES <= slice.count; c += LANES)
        transpose_row(from + c, strides[3], to + c * layout.plane, layout.plane,
                      end - start);
    for (; c < slice.count; ++c)
      copy_row(from + c * strides[1], strides[3], to + c * layout.plane, end - start);
  }
}

template <class T>
INLINE void restore_row(const float *from, T *to, int64_t step, int64_t columns) {
  int64_t i = 0;
  if (step == 1)
    for (; i + LANES <= columns; i += LANES)
      store<LANES>(to + i, load<LANES>(from + i));
  for (; i < columns; ++i) store_one(to + i * step, from[i]);
}

template <class T>
INLINE void restore_transposed(const float *from, int64_t plane, T *to, int64_t step,
                               int64_t columns) {
  for (int64_t i = 0; i < columns; i += LANES, to += LANES * step) {
    Vector<LANES> square[LANES];
    unroll<LANES>([&](auto l) INLINE_LAMBDA {
      square[l.value] = load<LANES>(from + l.value * plane + i);
    });
    transpose(square);
    if (i + LANES <= columns) {
      unroll<LANES>([&](auto l) INLINE_LAMBDA {
        store<LANES>(to + l.value * step, square[l.value]);
      });
    } else {
      for (int l = 0; l < columns - i; ++l) store<LANES>(to + l * step, square[l]);
    }
  }
}

// Writes planes to a region of the image, which lies inside.
template <class T>
void store_planes_of(const float *planes, Layout layout, const dcls_image &image,
                     Slice slice, Region region) {
  T *data = static_cast<T *>(image.data);
  const int64_t *strides = image.strides;
  for (int64_t r = 0; r < region.rows; ++r) {
    const float *from = planes + r * layout.stride;
    T *to = data + slice.batch * strides[0] + slice.first * strides[1] +
            (region.row + r) * strides[2] + region.column * strides[3];
    int64_t c = 0;
    if (strides[1] == 1 && strides[3] != 1)
      for (; c + LANES <= slice.count; c += LANES)
        restore_transposed(from + c * layout.plane, layout.plane, to + c, strides[3],
                           region.columns);
    for (; c < slice.count; ++c)
      restore_row(from + c * layout.plane, to + c * strides[1], strides[3],
                  region.columns);
  }
}

void load_planes(const dcls_image &image, int64_t height, int64_t width, Slice slice,
                 Region region, float *planes, Layout layout) {
  if (image.bfloat16)
    load_planes_of<uint16_t>(image, height, width, slice, region, planes, layout);
  else
    load_planes_of<float>(image, height, width, slice, region, planes, layout);
}

void store_planes(const float *planes, Layout layout, const dcls_image &image,
                  Slice slice, Region region) {
  if (image.bfloat16)
    store_planes_of<uint16_t>(planes, layout, image, slice, region);
  else
    store_planes_of<float>(planes, layout, image, slice, region);
}

}  // namespace
