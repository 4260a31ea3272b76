#include "taps.h"

#include <math.h>
#include <string.h>

#include <algorithm>

namespace dcls {
namespace {

constexpr float NORMALIZATION_EPS = 1e-7f;
constexpr int WORD = 64;  // taps of a column per word of bits

// Where the kernel of one output is put together: its taps, column by column, and a bit
// for each tap that is there.
struct Canvas {
  int64_t rows, words;
  uint64_t *bits;
  float *values;

  Canvas(const dcls_convolution &c, void *memory)
      : rows(c.rows), words((c.rows + WORD - 1) / WORD),
        bits(static_cast<uint64_t *>(memory)),
        values(reinterpret_cast<float *>(bits + c.columns * words)) {}

  float &at(int64_t row, int64_t column) { return values[column * rows + row]; }

  void add(int64_t row, int64_t column, float value) {
    uint64_t &word = bits[column * words + row / WORD];
    const uint64_t bit = uint64_t(1) << (row % WORD);
    if (word & bit) {
      at(row, column) += value;
    } else {
      at(row, column) = value;
      word |= bit;
    }
  }
};

// One axis of an element: the tap below it, and the share of the next one.
struct Placed {
  int64_t cell;
  float fraction;
  float center, moved;  // moved: center, or the border of the canvas if it is beyond
  float inside;         // the sum of the shares inside the kernel
  bool finite;

  float share(int next) const { return next ? fraction : 1 - fraction; }
};

Placed place(float position, int64_t extent) {
  Placed p;
  p.center = position + float(extent / 2);
  p.finite = isfinite(p.center);
  p.moved = p.finite ? std::min(std::max(p.center, -1.0f), float(extent)) : 0.0f;
  const float cell = floorf(p.moved);
  p.cell = int64_t(cell);
  p.fraction = p.moved - cell;
  p.inside = std::min(std::min(p.moved + 1, float(extent) - p.moved), 1.0f);
  return p;
}

struct Element {
  Placed row, column;
  int row_taps;  // 1 in 1-d, else 2
  float total;

  bool finite() const { return row.finite && column.finite; }
};

Element element_of(const dcls_convolution &c, int64_t output, int64_t index) {
  const int64_t at = output * c.position_stride + index;
  Element e;
  e.column = place(c.position_columns[at], c.columns);
  e.row_taps = c.position_rows ? 2 : 1;
  e.row = c.position_rows ? place(c.position_rows[at], c.rows)
                          : Placed{0, 0.0f, 0.0f, 0.0f, 1.0f, true};
  e.total = c.normalized ? e.row.inside * e.column.inside + NORMALIZATION_EPS : 1.0f;
  return e;
}

bool contains(const Box &box, int64_t row, int64_t column) {
  return row >= box.row_low && row <= box.row_high && column >= box.column_low &&
         column <= box.column_high;
}

struct Range {
  float low, high;
};

// Eight at a time, which compilers turn into vectors; NaNs don't count.
Range range_of(const float *values, int64_t count) {
  constexpr int lanes = 8;
  float low[lanes], high[lanes];
  std::fill(low, low + lanes, INFINITY);
  std::fill(high, high + lanes, -INFINITY);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    for (int l = 0; l < lanes; ++l) {
      const float value = values[i + l];
      low[l] = value < low[l] ? value : low[l];
      high[l] = value > high[l] ? value : high[l];
    }
  }
  for (; i < count; ++i) {
    low[0] = values[i] < low[0] ? values[i] : low[0];
    high[0] = values[i] > high[0] ? values[i] : high[0];
  }
  return {*std::min_element(low, low + lanes), *std::max_element(high, high + lanes)};
}

// Narrows [low, high] to the taps of positions along one axis.
void narrow(const float *positions, int64_t count, int64_t extent, int64_t *low,
            int64_t *high) {
  const Range range = range_of(positions, count);
  if (range.low > range.high) {  // no number
    *high = *low - 1;
    return;
  }
  *low = std::max(*low, place(std::max(range.low, -float(extent)), extent).cell);
  *high = std::min(*high, place(std::min(range.high, float(extent)), extent).cell + 1);
}

}  // namespace

Box reached_taps(const dcls_convolution &c) {
  return {std::max<int64_t>(0, c.top - c.out_height + 1),
          std::min<int64_t>(c.rows - 1, c.top + c.height - 1),
          std::max<int64_t>(0, c.left - c.out_width + 1),
          std::min<int64_t>(c.columns - 1, c.left + c.width - 1)};
}

Box bounding_box(const dcls_convolution &c, const Selection &selection) {
  const int64_t outputs = c.channels * c.multiplier;
  Box box = selection.reached;
  if (c.weight) {
    const int64_t count = c.position_stride ? outputs * c.count : c.count;
    narrow(c.position_columns, count, c.columns, &box.column_low, &box.column_high);
    if (c.position_rows)
      narrow(c.position_rows, count, c.rows, &box.row_low, &box.row_high);
  } else {
    Box taps = {INT32_MAX, -1, INT32_MAX, -1};
    for (int64_t i = 0; i < c.tap_first[outputs]; ++i) {
      taps.row_low = std::min<int64_t>(taps.row_low, c.tap_rows[i]);
      taps.row_high = std::max<int64_t>(taps.row_high, c.tap_rows[i]);
      taps.column_low = std::min<int64_t>(taps.column_low, c.tap_columns[i]);
      taps.column_high = std::max<int64_t>(taps.column_high, c.tap_columns[i]);
    }
    box = {std::max(box.row_low, taps.row_low), std::min(box.row_high, taps.row_high),
           std::max(box.column_low, taps.column_low),
           std::min(box.column_high, taps.column_high)};
  }
  if (box.empty()) return {0, 0, 0, 0};
  if (!selection.flip) return box;
  return {c.rows - 1 - box.row_high, c.rows - 1 - box.row_low,
          c.columns - 1 - box.column_high, c.columns - 1 - box.column_low};
}

int64_t tap_capacity(const dcls_convolution &c) {
  int64_t most = 4 * c.count;
  if (!c.weight) {
    most = 0;
    for (int64_t o = 0; o < c.channels * c.multiplier; ++o)
      most = std::max(most, c.tap_first[o + 1] - c.tap_first[o]);
  }
  return std::max<int64_t>(1, std::min(most, c.rows * c.columns));
}

int64_t canvas_bytes(const dcls_convolution &c) {
  const int64_t words = (c.rows + WORD - 1) / WORD;
  return c.columns * (words * int64_t(sizeof(uint64_t)) +
                      c.rows * int64_t(sizeof(float)));
}

void make_taps(const dcls_convolution &c, int64_t output, const Selection &selection,
               void *memory, Taps *taps) {
  Canvas canvas(c, memory);
  const int64_t words = c.columns * canvas.words;
  memset(canvas.bits, 0, size_t(words) * sizeof(uint64_t));
  taps->poisoned = 0;
  auto add = [&](int64_t row, int64_t column, float value) {
    if (!contains(selection.reached, row, column)) return;
    if (value == 0 && !selection.keep_zero) return;
    if (selection.flip) row = c.rows - 1 - row, column = c.columns - 1 - column;
    canvas.add(row, column, value);
  };
  if (c.weight) {
    const float *weight = c.weight + output * c.count;
    for (int64_t i = 0; i < c.count; ++i) {
      const Element e = element_of(c, output, i);
      if (!e.finite()) {
        taps->poisoned = 1;
        continue;
      }
      const float value = weight[i] / e.total;
      for (int down = 0; down < e.row_taps; ++down)
        for (int right = 0; right < 2; ++right)
          add(e.row.cell + down, e.column.cell + right,
              value * e.row.share(down) * e.column.share(right));
    }
  } else {
    for (int64_t i = c.tap_first[output]; i < c.tap_first[output + 1]; ++i)
      add(c.tap_rows[i], c.tap_columns[i], c.tap_values[i]);
  }

  // Two turns over the bits: count the windows of each kind, then write them in order.
  int32_t next[KINDS + 1] = {};
  for (int64_t i = 0; i < words; ++i) {
    for (uint64_t bits = canvas.bits[i]; bits;) {
      const int start = __builtin_ctzll(bits);
      const uint64_t mask = (bits >> start) & 15;
      ++next[mask / 2 + 1];
      bits &= ~(mask << start);
    }
  }
  for (int kind = 0; kind < KINDS; ++kind) next[kind + 1] += next[kind];
  memcpy(taps->first, next, sizeof next);
  for (int64_t i = 0; i < words; ++i) {
    for (uint64_t bits = canvas.bits[i]; bits;) {
      const int start = __builtin_ctzll(bits);
      const uint64_t mask = (bits >> start) & 15;
      Window &window = taps->windows[next[mask / 2]++];
      window.row = int32_t(i % canvas.words * WORD + start);
      window.column = int32_t(i / canvas.words);
      for (int t = 0; t < WINDOW_ROWS; ++t)
        window.values[t] =
            mask >> t & 1 ? canvas.at(window.row + t, window.column) : 0.0f;
      bits &= ~(mask << start);
    }
  }
}

void element_gradients(const dcls_convolution &c, int64_t output,
                       const Selection &selection, const Taps &taps,
                       const float *tap_gradients, void *memory, float *grad_weight,
                       float *grad_rows, float *grad_columns) {
  Canvas canvas(c, memory);
  for (int kind = 0; kind < KINDS; ++kind)
    for (int32_t i = taps.first[kind]; i < taps.first[kind + 1]; ++i)
      for (int t = 0; t < WINDOW_ROWS; ++t)
        if (mask_of(kind) >> t & 1)
          canvas.at(taps.windows[i].row + t, taps.windows[i].column) = *tap_gradients++;

  auto gradient = [&](int64_t row, int64_t column) {
    return contains(selection.reached, row, column) ? canvas.at(row, column) : 0.0f;
  };
  const float *weight = c.weight + output * c.count;
  for (int64_t i = 0; i < c.count; ++i) {
    const Element e = element_of(c, output, i);
    const int64_t at = output * c.count + i;
    if (!e.finite()) {
      grad_weight[at] = grad_columns[at] = NAN;
      if (grad_rows) grad_rows[at] = NAN;
      continue;
    }
    // The bilinear value between the taps' gradients, and its slope along each axis.
    float corner[2][2] = {};
    for (int down = 0; down < e.row_taps; ++down)
      for (int right = 0; right < 2; ++right)
        corner[down][right] = gradient(e.row.cell + down, e.column.cell + right);
    float across[2], steps[2];
    for (int down = 0; down < 2; ++down) {
      steps[down] = corner[down][1] - corner[down][0];
      across[down] = corner[down][0] + e.column.fraction * steps[down];
    }
    const float value = (across[0] + e.row.fraction * (across[1] - across[0])) / e.total;
    auto slope = [&](float plain, const Placed &axis, float other, int64_t extent) {
      if (c.normalized) {
        if (axis.fraction == 0) return 0.0f;
        const float of_total =
            float(axis.moved < 0) - float(axis.moved > float(extent - 1));
        plain -= value * of_total * other;
      }
      return axis.moved == axis.center ? plain * weight[i] / e.total : 0.0f;
    };
    grad_weight[at] = value;
    grad_columns[at] = slope(steps[0] + e.row.fraction * (steps[1] - steps[0]),
                             e.column, e.row.inside, c.columns);
    if (grad_rows)
      grad_rows[at] = slope(across[1] - across[0], e.row, e.column.inside, c.rows);
  }
}

}  // namespace dcls
