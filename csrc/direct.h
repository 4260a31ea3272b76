// The depthwise convolution over the taps that exist, and its gradients: plain C, plain
// pointers, so that one build serves every version of torch.
//
// A kernel is given by elements, each a weight at a real-valued position of which the
// (up to) four taps around it get a share, or by its taps themselves. Everything else
// of its extent is zero and costs nothing:
//
//   y[n, o, i, j] = bias[o] + sum over the taps (r, c, v) of o:
//                   v * x[n, o / multiplier, i + r - top, j + c - left]
//
// with x zero outside the image. Sums are float32. Results do not depend on the number
// of threads.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// A batch of images in any memory layout.
typedef struct {
  void *data;
  int64_t strides[4];  // from one batch, channel, row, column to the next, in numbers
  int64_t bfloat16;    // 1 for bfloat16, 0 for float32
} dcls_image;

// GOMP_parallel of the OpenMP runtime that the process already has: calls
// body(argument) on that many threads and waits for them.
typedef void (*dcls_parallel)(void (*body)(void *), void *argument, unsigned threads,
                              unsigned flags);

// The sizes and the kernels of a convolution.
typedef struct {
  int64_t batch, channels, multiplier;  // each channel of x has `multiplier` outputs
  int64_t height, width;                // of x
  int64_t out_height, out_width;
  int64_t rows, columns;  // extent of the kernels
  int64_t top, left;      // zeros before the first row and column; may be negative

  // Elements: (outputs, count) numbers. Positions are in taps from tap extent / 2.
  int64_t count;  // or the number of all windows, see below
  const float *weight;
  const float *position_rows;  // null in 1-d: all in the only row
  const float *position_columns;
  int64_t position_stride;  // from one output to the next; 0 if all share positions
  int64_t normalized;       // 1: divide by the sum of the shares inside, 'triangle'

  // Or, if weight is null, windows of taps: up to four in consecutive rows of one
  // column. The windows of output o that are of kind k are numbers kinds[9 * o + k] to
  // kinds[9 * o + k + 1], from 0 to count; they have taps in the rows of the bits of
  // 2 * k + 1. `places` has row and column of each window's first tap, `values` the
  // values of its four rows. Taps that coincide add up.
  const int32_t *kinds, *places;
  const float *values;

  dcls_parallel parallel;  // null: one thread
  int64_t threads;
} dcls_convolution;

#define DCLS_API __attribute__((visibility("default")))

// All return 0; 1 if memory is short; or 2 if taps lie outside the extent or `kinds`
// does not rise from 0 to count. Images must not overlap in memory.

// bias: (outputs,) or null.
DCLS_API int dcls_forward(const dcls_convolution *convolution, const dcls_image *x,
                          const float *bias, const dcls_image *y);

// The gradients, for kernels given by elements.
DCLS_API int dcls_input_gradient(const dcls_convolution *convolution,
                                 const dcls_image *grad_y, const dcls_image *grad_x);

// Those of weight, rows and columns, (outputs, count) each, and of the bias,
// (outputs,). Those of the positions are of each output, also if they are shared.
DCLS_API int dcls_element_gradients(const dcls_convolution *convolution,
                                    const dcls_image *x, const dcls_image *grad_y,
                                    float *grad_weight, float *grad_rows,
                                    float *grad_columns, float *grad_bias);

// Selects the instruction set ('plain', 'avx2', 'avx512'; null: the best one that this
// processor has) and returns its name, or null if this processor or build lacks it.
DCLS_API const char *dcls_instructions(const char *wanted);

#ifdef __cplusplus
}
#endif
