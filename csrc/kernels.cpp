// The tasks of a job for one instruction set: compiled once for each, with NAME, LANES
// (numbers in a vector) and ROWS (vectors kept in registers, about half of all).
#include "blocks.h"
#include "job.h"
#include "planes.h"
#include "vectors.h"

namespace {

using dcls::Box;
using dcls::Job;
using dcls::Kernels;

constexpr int NARROW = LANES > 4 ? LANES / 2 : LANES;

// The blocks by height, ROWS first, halved each time.
constexpr int HEIGHTS = ROWS == 16 ? 4 : 3;
static_assert(ROWS == 16 || ROWS == 8, "see HEIGHTS");

using ConvolveBlock = void (*)(Pixels, const Taps *, int64_t, int64_t, float, float *,
                               int64_t);
using CorrelateBlock = void (*)(const Pixels &, const Taps &, const float *, int64_t,
                                float *);

template <int L>
constexpr ConvolveBlock convolve_blocks[HEIGHTS] = {
    convolve_block<L, ROWS>,
    convolve_block<L, ROWS / 2>,
    convolve_block<L, ROWS / 4>,
#if ROWS == 16
    convolve_block<L, ROWS / 8>,
#endif
};
template <int L>
constexpr CorrelateBlock correlate_blocks[HEIGHTS] = {
    correlate_block<L, ROWS>,
    correlate_block<L, ROWS / 2>,
    correlate_block<L, ROWS / 4>,
#if ROWS == 16
    correlate_block<L, ROWS / 8>,
#endif
};

// Which block to use for this many rows: the largest that fits, or the next larger one
// if a fifth of it or less is wasted.
INLINE int height_for(int64_t rows) {
  for (int h = HEIGHTS - 1; h > 0; --h)
    if (rows <= ROWS >> h ||
        (rows < ROWS >> (h - 1) && 5 * rows < 4 * (ROWS >> (h - 1))))
      return h;
  return 0;
}

// The tile of a task, in pixels of the output.
struct Tile {
  int64_t row, column, rows, columns;

  Tile(const Job &job, int64_t index) {
    row = index / job.tiles_across * job.tile_rows;
    column = index % job.tiles_across * job.tile_columns;
    rows = job.out_height - row < job.tile_rows ? job.out_height - row : job.tile_rows;
    columns = job.out_width - column < job.tile_columns ? job.out_width - column
                                                        : job.tile_columns;
  }

  // Calls block(row, column, height, narrow) for blocks that cover the tile.
  template <class Block>
  INLINE void each_block(const Job &job, Block &&block) const {
    if (job.line) {
      const int64_t vectors = (columns + LANES - 1) / LANES;
      for (int64_t v = 0; v < vectors;) {
        const int height = height_for(vectors - v);
        block(0, v * LANES, height, false);
        v += ROWS >> height;
      }
      return;
    }
    for (int64_t r = 0; r < rows;) {
      const int height = height_for(rows - r);
      for (int64_t c = 0; c < columns; c += LANES)
        block(r, c, height, columns - c <= NARROW);
      r += ROWS >> height;
    }
  }

  // The region of the source under the tile.
  Region source(const Job &job) const {
    const Box &box = job.box;
    return {row + box.row_low - job.top, column + box.column_low - job.left,
            dcls::round_up(rows, job.line ? 1 : ROWS) + box.row_high - box.row_low,
            job.in.stride - job.in.lead};
  }
};

INLINE Pixels pixels_in(const Job &job, const float *plane, int64_t row,
                        int64_t column) {
  return {plane + job.in.lead + row * job.in.stride + column, job.in.stride,
          job.line ? LANES : job.in.stride,
          job.box.row_low * job.in.stride + job.box.column_low};
}

// Where the blocks of a task go: to rows of the image if its columns are consecutive,
// else to planes in scratch memory.
bool writes_rows(const Job &job) { return job.target->strides[3] == 1; }

// Copies a block to the image, as far as it lies inside.
template <class T>
void store_block(const float *block, int64_t step, T *to, int64_t stride, int64_t rows,
                 int64_t columns) {
  for (int64_t r = 0; r < rows; ++r) copy(block + r * step, to + r * stride, columns);
}

void convolve(const Job &job, int64_t task, float *scratch) {
  const Tile tile(job, task % job.tiles());
  const int64_t unit = task / job.tiles() % job.units;
  const int64_t batch = task / job.tiles() / job.units;
  const int64_t first = unit * job.unit;
  const int64_t groups = job.groups - first < job.unit ? job.groups - first : job.unit;

  const dcls_image &image = *job.target;
  const int64_t *strides = image.strides;
  const bool to_rows = writes_rows(job);
  float *target = scratch + job.unit * job.sources * job.in.plane;
  load_planes(*job.source, job.height, job.width,
              {batch, first * job.sources, groups * job.sources}, tile.source(job),
              scratch, job.in);
  for (int64_t p = 0; p < groups * job.targets; ++p) {
    const int64_t source = p / job.targets * job.sources;
    const int64_t channel = first * job.targets + p;
    const Taps *taps = job.taps + channel * job.sources;
    float start = job.bias ? job.bias[channel] : 0.0f;
    for (int64_t s = 0; s < job.sources; ++s)
      if (taps[s].poisoned) start = __builtin_nanf("");
    float *plane = target + p * job.out.plane;
    const int64_t pixel = batch * strides[0] + channel * strides[1] +
                          tile.row * strides[2] + tile.column * strides[3];
    tile.each_block(job, [&](int64_t row, int64_t column, int height, bool narrow) {
      const int lanes = narrow ? NARROW : LANES;
      int64_t rows = ROWS >> height, columns = lanes;
      float *to = plane + row * job.out.stride + column;
      int64_t step = job.line ? LANES : job.out.stride;
      const int64_t at = pixel + row * strides[2] + column;
      bool inside = false;
      if (to_rows) {
        if (job.line) columns *= rows, rows = 1;
        inside = row + rows <= tile.rows && column + columns <= tile.columns;
        if (rows > tile.rows - row) rows = tile.rows - row;
        if (columns > tile.columns - column) columns = tile.columns - column;
        inside = inside && !image.bfloat16;
        to = inside ? static_cast<float *>(image.data) + at : target;
        step = inside && !job.line ? strides[2] : lanes;
      }
      const auto &blocks = narrow ? convolve_blocks<NARROW> : convolve_blocks<LANES>;
      blocks[height](pixels_in(job, scratch + source * job.in.plane, row, column), taps,
                     job.sources, job.in.plane, start, to, step);
      if (!to_rows || inside) return;
      if (image.bfloat16)
        store_block(to, step, static_cast<uint16_t *>(image.data) + at, strides[2],
                    rows, columns);
      else
        store_block(to, step, static_cast<float *>(image.data) + at, strides[2], rows,
                    columns);
    });
  }
  if (!to_rows)
    store_planes(target, job.out, image,
                 {batch, first * job.targets, groups * job.targets},
                 {tile.row, tile.column, tile.rows, tile.columns});
}

// Adds the sum of each of `count` vectors to `to`; there are vectors up to the next
// multiple of LANES.
void add_sums(const float *vectors, int64_t count, float *to) {
  for (int64_t i = 0; i < count; i += LANES, vectors += LANES * LANES) {
    Vector<LANES> square[LANES];
    for (int l = 0; l < LANES; ++l) square[l] = load<LANES>(vectors + l * LANES);
    transpose(square);
    Vector<LANES> total = square[0];
    for (int l = 1; l < LANES; ++l) total += square[l];
    for (int l = 0; l < LANES && i + l < count; ++l) to[i + l] += total[l];
  }
}

int64_t taps_in(const Taps &taps) {
  int64_t count = 0;
  for (int kind = 0; kind < KINDS; ++kind)
    count += __builtin_popcount(dcls::mask_of(kind)) *
             (taps.first[kind + 1] - taps.first[kind]);
  return count;
}

void correlate(const Job &job, int64_t task, float *scratch) {
  const int64_t unit = task % job.units, chunk = task / job.units;
  const int64_t first = unit * job.unit;
  const int64_t groups = job.groups - first < job.unit ? job.groups - first : job.unit;
  const int64_t planes = groups * job.targets;
  float *gradients = scratch + job.unit * job.in.plane;
  float *sums = gradients + job.unit * job.targets * job.out.plane;
  float *partial =
      job.partial + (chunk * job.groups + first) * job.targets * (job.capacity + 1);
  memset(partial, 0, size_t(planes * (job.capacity + 1)) * sizeof(float));

  const int64_t items = job.batch * job.tiles();
  for (int64_t item = items * chunk / job.chunks;
       item < items * (chunk + 1) / job.chunks; ++item) {
    const Tile tile(job, item % job.tiles());
    const int64_t batch = item / job.tiles();
    load_planes(*job.source, job.height, job.width, {batch, first, groups},
                tile.source(job), scratch, job.in);
    load_planes(*job.target, job.out_height, job.out_width,
                {batch, first * job.targets, planes},
                {tile.row, tile.column, dcls::round_up(tile.rows, job.line ? 1 : ROWS),
                 tile.columns},
                gradients, job.out);
    for (int64_t p = 0; p < planes; ++p) {
      const float *source = scratch + p / job.targets * job.in.plane;
      const float *gradient = gradients + p * job.out.plane;
      const Taps &taps = job.taps[first * job.targets + p];
      const int64_t count = taps_in(taps) + 1;
      memset(sums, 0, size_t(dcls::round_up(count, LANES) * LANES) * sizeof(float));
      tile.each_block(job, [&](int64_t row, int64_t column, int height, bool narrow) {
        const auto &blocks =
            narrow ? correlate_blocks<NARROW> : correlate_blocks<LANES>;
        blocks[height](pixels_in(job, source, row, column), taps,
                       gradient + row * job.out.stride + column,
                       job.line ? LANES : job.out.stride, sums);
      });
      add_sums(sums, count, partial + p * (job.capacity + 1));
    }
  }
}

const Kernels kernels = {NAME, LANES, ROWS, convolve, correlate};

}  // namespace

namespace dcls {
extern const Kernels *const KERNELS;
const Kernels *const KERNELS = &kernels;
}  // namespace dcls
