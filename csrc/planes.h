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

// Writes zeros from `from` to `to`, and on to the end of the last vector.
INLINE void zero(float *from, const float *to) {
  for (; from < to; from += LANES) {
    store<LANES>(from, Vector<LANES>{});
    asm volatile("" ::: "memory");  // or compilers call memset for a few numbers
  }
}

// Copies numbers that are consecutive, in vectors of which the last two may overlap.
template <class From, class To>
INLINE void copy(const From *from, To *to, int64_t count) {
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) store<LANES>(to + i, load<LANES>(from + i));
  if (i == count) return;
  if (count >= LANES)
    store<LANES>(to + count - LANES, load<LANES>(from + count - LANES));
  else
    for (; i < count; ++i) store_one(to + i, load_one(from + i));
}

template <class T>
INLINE void copy_row(const T *from, int64_t step, float *to, int64_t columns) {
  if (step == 1) return copy(from, to, columns);
  for (int64_t i = 0; i < columns; ++i) to[i] = load_one(from + i * step);
}

// Writes on to the end of the last vector.
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

// Fills planes with a region of the image and zeros around it. What is written beyond
// the end of a row is overwritten by the next; after a plane there is room for it.
template <class T>
void load_planes_of(const dcls_image &image, int64_t height, int64_t width, Slice slice,
                    Region region, float *planes, Layout layout) {
  // The rows and columns of the region that are in the image.
  int64_t top = region.row < 0 ? -region.row : 0, bottom = height - region.row;
  int64_t start = region.column < 0 ? -region.column : 0, end = width - region.column;
  if (end > region.columns) end = region.columns;
  if (bottom > region.rows) bottom = region.rows;
  if (top >= bottom || start >= end) top = bottom = region.rows;
  const T *data = static_cast<const T *>(image.data);
  const int64_t *strides = image.strides;
  const bool squares = strides[1] == 1 && strides[3] != 1;
  const int64_t together = squares && slice.count >= LANES ? LANES : 1;
  for (int64_t c = 0; c < slice.count;) {
    const int64_t channels = slice.count - c >= together ? together : 1;
    float *plane = planes + c * layout.plane;
    const int64_t size = region.rows * layout.stride;
    for (int64_t i = 0; i < channels; ++i, plane += layout.plane)
      zero(plane, plane + top * layout.stride);
    for (int64_t r = top; r < bottom; ++r) {
      const T *from = data + slice.batch * strides[0] + (slice.first + c) * strides[1] +
                      (region.row + r) * strides[2] +
                      (region.column + start) * strides[3];
      float *row = planes + c * layout.plane + r * layout.stride;
      float *to = row + layout.lead + start;
      for (int64_t i = 0; i < channels; ++i)
        zero(row + i * layout.plane, to + i * layout.plane);
      if (channels == LANES && squares)
        transpose_row(from, strides[3], to, layout.plane, end - start);
      else
        copy_row(from, strides[3], to, end - start);
      for (int64_t i = 0; i < channels; ++i)
        zero(to + i * layout.plane + end - start,
             row + i * layout.plane + layout.stride);
    }
    plane = planes + c * layout.plane;
    for (int64_t i = 0; i < channels; ++i, plane += layout.plane)
      zero(plane + bottom * layout.stride, plane + size);
    c += channels;
  }
}

template <class T>
INLINE void restore_row(const float *from, T *to, int64_t step, int64_t columns) {
  if (step == 1) return copy(from, to, columns);
  for (int64_t i = 0; i < columns; ++i) store_one(to + i * step, from[i]);
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
