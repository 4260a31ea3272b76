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

struct Window {
  int32_t row, column;
  float values[WINDOW_ROWS];
};

// Windows in the order of their kinds: those of kind k are first[k] ... first[k + 1].
struct Taps {
  Window *windows;
  int32_t first[KINDS + 1];
  int32_t poisoned;  // a position is NaN or infinite: all taps are NaN
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

// Whether the list of taps, if there is one, is as direct.h says.
bool valid_taps(const dcls_convolution &convolution);

// A box inside `reached` with all taps of all channels, for `selection`'s order of rows.
Box bounding_box(const dcls_convolution &convolution, const Selection &selection);

// The most taps (and so windows) that a channel may have.
int64_t tap_capacity(const dcls_convolution &convolution);

// Memory that make_taps and element_gradients need, as `canvas`. It must be zero before
// the first call, and serves any number of further ones.
int64_t canvas_bytes(const dcls_convolution &convolution);

// Fills `taps`, whose windows have room for tap_capacity.
void make_taps(const dcls_convolution &convolution, int64_t output,
               const Selection &selection, void *canvas, Taps *taps);

// Turns the gradients of an output's taps (in the order of the windows, made with
// keep_zero and without flip) into those of its elements.
void element_gradients(const dcls_convolution &convolution, int64_t output,
                       const Taps &taps, const float *tap_gradients, void *canvas,
                       float *grad_weight, float *grad_rows, float *grad_columns);

}  // namespace dcls
