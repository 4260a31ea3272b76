// From elements to the taps of a channel, and back with gradients.
//
// The taps of a channel are grouped into windows: up to four taps within four
// consecutive rows of one column. The rows of the image under such taps overlap, and a
// row that has been loaded serves all of them. Which of the four rows have a tap is the
// kind of the window, and each kind has a loop of its own (blocks.h).
#pragma once

#include <stdint.h>

#include "direct.h"

namespace dcls {

constexpr int WINDOW_ROWS = 4;
constexpr int KINDS = 8;  // the first row always has a tap: 2 ** 3 choices for the rest

// Kind k has a tap in row t of the window where bit t of the mask is set.
constexpr unsigned mask_of(int kind) { return 2u * unsigned(kind) + 1u; }

// How many rows the windows of a kind span.
constexpr int span_of(int kind) { return kind >= 4 ? 4 : kind >= 2 ? 3 : kind + 1; }

struct Place {
  int32_t row, column;  // of the first tap
};

struct Values {
  float rows[WINDOW_ROWS];
};

// The windows of one output, in the order of their kinds: those of kind k are numbers
// first[k] to first[k + 1].
struct Taps {
  const int32_t *first;
  const Place *places;
  const Values *values;
  bool poisoned;  // a position is NaN or infinite: all taps are NaN
};

// Memory for the windows of one output; as many windows as tap_capacity.
struct Windows {
  int32_t *first;
  Place *places;
  Values *values;
};

// A rectangle of taps, the ends included; empty if it ends before it starts.
struct Box {
  int64_t row_low, row_high, column_low, column_high;

  bool empty() const { return row_low > row_high || column_low > column_high; }
};

// Which taps count, and how they are written.
struct Selection {
  Box reached;     // taps outside of it see no pixel, or lie outside the kernel
  bool flip;       // count rows and columns from the end
  bool keep_zero;  // list taps of value zero too, as their gradients are needed
};

// The taps of the kernels that can see a pixel.
Box reached_taps(const dcls_convolution &convolution);

// Finds the box of all windows that the convolution has been given. Returns whether
// they are as direct.h says.
bool box_of_windows(const dcls_convolution &convolution, Box *box);

// A box inside `reached` with all elements' taps, for `selection`'s order of rows.
Box bounding_box(const dcls_convolution &convolution, const Selection &selection);

// The most taps (and so windows) that the elements of an output may have.
int64_t tap_capacity(const dcls_convolution &convolution);

// Memory that make_taps and element_gradients need, as `canvas`. It must be zero before
// the first call, and serves any number of further ones.
int64_t canvas_bytes(const dcls_convolution &convolution);

// Writes the windows of an output's elements. Returns whether they are poisoned.
bool make_taps(const dcls_convolution &convolution, int64_t output,
               const Selection &selection, void *canvas, const Windows &windows);

// Turns the gradients of an output's taps (in the order of the windows, made with
// keep_zero and without flip) into those of its elements.
void element_gradients(const dcls_convolution &convolution, int64_t output,
                       const Taps &taps, const float *tap_gradients, void *canvas,
                       float *grad_weight, float *grad_rows, float *grad_columns);

}  // namespace dcls
