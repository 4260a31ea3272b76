#include "taps.h"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <utility>

namespace dcls {
namespace {

constexpr float NORMALIZATION_EPS = 1e-7f;
constexpr unsigned WORD = 64;  // taps of a column per word of bits

// Where the kernel of one output is put together, column by column, and a bit for each
// tap that is there. It has MARGIN more taps before and after on each axis, so that
// elements at the border or beyond have taps to write to; the kernel's first tap is
// (MARGIN, MARGIN). All of its memory is zero whenever no function runs.
constexpr int MARGIN = 2;

struct Canvas {
  struct Listed {
    int32_t row, column, mask;
  };

  int64_t rows, columns, words;  // words of bits per column
  uint64_t *bits;
  float *values;
  Listed *list;  // windows, at most as many as taps

  Canvas(const dcls_convolution &c, void *memory)
      : rows(c.rows + 2 * MARGIN),
        columns(c.columns + 2 * MARGIN),
        words((rows + int64_t(WORD) - 1) / int64_t(WORD)),
        bits(static_cast<uint64_t *>(memory)),
        values(reinterpret_cast<float *>(bits + columns * words)),
        list(reinterpret_cast<Listed *>(values + columns * rows)) {}

  float &at(int64_t row, int64_t column) { return values[column * rows + row]; }

  void add(int64_t row, int64_t column, float value, bool listed) {
    at(row, column) += value;
    const uint64_t bit = uint64_t(row);
    bits[column * words + int64_t(bit / WORD)] |= uint64_t(listed) << (bit % WORD);
  }
};

// Up to this many elements are placed together, in loops that become vectors.
constexpr int TOGETHER = 64;

// One axis of some elements. `cell` is the tap below, counted on the canvas; the next
// one has the share `fraction`. `moved` is the center, or the border of the canvas.
struct Axis {
  int32_t cell[TOGETHER];
  float fraction[TOGETHER], center[TOGETHER], moved[TOGETHER], inside[TOGETHER];

  void place(const float *positions, int64_t count, int64_t extent) {
    const float middle = float(extent / 2), size = float(extent);
    for (int64_t i = 0; i < count; ++i) {
      const float c = positions[i] + middle;
      float m = c > -1 ? c : -1;  // also a NaN
      m = m < size ? m : size;
      const int32_t above = int32_t(m + 1);
      const float low = m + 1, high = size - m, least = low < high ? low : high;
      cell[i] = above - 1 + MARGIN;
      fraction[i] = m - float(above - 1);
      center[i] = c;
      moved[i] = m;
      inside[i] = least < 1 ? least : 1;
    }
  }

  // In 1-d: all elements are in the first row, and nothing of them in the next.
  void place_in_first(int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      cell[i] = MARGIN;
      fraction[i] = center[i] = moved[i] = 0;
      inside[i] = 1;
    }
  }
};

struct Elements {
  Axis row, column;
  float total[TOGETHER];

  void place(const dcls_convolution &c, int64_t output, int64_t first, int64_t count) {
    const int64_t at = output * c.position_stride + first;
    column.place(c.position_columns + at, count, c.columns);
    if (c.position_rows)
      row.place(c.position_rows + at, count, c.rows);
    else
      row.place_in_first(count);
    for (int64_t i = 0; i < count; ++i)
      total[i] =
          c.normalized ? row.inside[i] * column.inside[i] + NORMALIZATION_EPS : 1;
  }

  // 0, or NaN if the position is NaN or infinite.
  float poison(int64_t i) const { return (row.center[i] + column.center[i]) * 0; }
};

// The bits of a word that are rows from `low` to `high` of the canvas.
uint64_t bits_between(int64_t low, int64_t high, int64_t word) {
  low = std::max<int64_t>(low - word * int64_t(WORD), 0);
  high = std::min<int64_t>(high - word * int64_t(WORD), WORD - 1);
  if (low > high) return 0;
  return (~uint64_t(0) >> (WORD - 1 - (high - low))) << low;
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

// The tap below a position, or the border.
int64_t tap_below(float position, int64_t extent) {
  const float center = position + float(extent / 2);
  return int64_t(std::min(std::max(center, -1.0f), float(extent)) + 1) - 1;
}

// Narrows [low, high] to the taps of positions along one axis.
void narrow(const float *positions, int64_t count, int64_t extent, int64_t *low,
            int64_t *high) {
  const Range range = range_of(positions, count);
  if (range.low > range.high) {  // no number
    *high = *low - 1;
    return;
  }
  *low = std::max(*low, tap_below(range.low, extent));
  *high = std::min(*high, tap_below(range.high, extent) + 1);
}

Box flipped(const Box &box, const dcls_convolution &c) {
  return {c.rows - 1 - box.row_high, c.rows - 1 - box.row_low,
          c.columns - 1 - box.column_high, c.columns - 1 - box.column_low};
}

// Returns whether they are poisoned.
bool add_elements(const dcls_convolution &c, int64_t output, const Selection &selection,
                  Canvas &canvas) {
  const bool flip = selection.flip, all = selection.keep_zero;
  const int64_t next = flip ? -1 : 1;
  Elements e;
  float poison = 0;
  for (int64_t first = 0; first < c.count; first += TOGETHER) {
    const int64_t count = std::min<int64_t>(TOGETHER, c.count - first);
    e.place(c, output, first, count);
    const float *weight = c.weight + output * c.count + first;
    for (int64_t i = 0; i < count; ++i) {
      poison += e.poison(i);
      const float value = weight[i] / e.total[i];
      const float below = value * e.row.fraction[i], above = value - below;
      const float a = above * e.column.fraction[i], b = below * e.column.fraction[i];
      const int64_t row = flip ? canvas.rows - 1 - e.row.cell[i] : e.row.cell[i];
      const int64_t column =
          flip ? canvas.columns - 1 - e.column.cell[i] : e.column.cell[i];
      canvas.add(row, column, above - a, all || above - a != 0);
      canvas.add(row, column + next, a, all || a != 0);
      canvas.add(row + next, column, below - b, all || below - b != 0);
      canvas.add(row + next, column + next, b, all || b != 0);
    }
  }
  return poison != poison;
}

}  // namespace

Box reached_taps(const dcls_convolution &c) {
  return {std::max<int64_t>(0, c.top - c.out_height + 1),
          std::min<int64_t>(c.rows - 1, c.top + c.height - 1),
          std::max<int64_t>(0, c.left - c.out_width + 1),
          std::min<int64_t>(c.columns - 1, c.left + c.width - 1)};
}

bool box_of_windows(const dcls_convolution &c, Box *box) {
  const int64_t outputs = c.channels * c.multiplier;
  const auto *places = reinterpret_cast<const Place *>(c.places);
  Place low = {INT32_MAX, INT32_MAX};
  int64_t row_high = -1, column_high = -1;
  int64_t next = 0;
  for (int64_t o = 0; o < outputs; ++o) {
    const int32_t *first = c.kinds + o * (KINDS + 1);
    if (first[0] != next) return false;
    for (int kind = 0; kind < KINDS; ++kind) {
      next = first[kind + 1];
      if (next < first[kind] || next > c.count) return false;
      int32_t last_row = -1, last_column = -1;
      for (int64_t i = first[kind]; i < next; ++i) {
        low.row = std::min(low.row, places[i].row);
        low.column = std::min(low.column, places[i].column);
        last_row = std::max(last_row, places[i].row);
        last_column = std::max(last_column, places[i].column);
      }
      if (last_row >= 0)
        row_high = std::max<int64_t>(row_high, int64_t(last_row) + span_of(kind) - 1);
      column_high = std::max<int64_t>(column_high, last_column);
    }
  }
  if (next != c.count) return false;
  if (!c.count) {
    *box = {0, 0, 0, 0};
    return true;
  }
  *box = {low.row, row_high, low.column, column_high};
  return low.row >= 0 && low.column >= 0 && row_high < c.rows &&
         column_high < c.columns;
}

Box bounding_box(const dcls_convolution &c, const Selection &selection) {
  const int64_t outputs = c.channels * c.multiplier;
  const int64_t count = c.position_stride ? outputs * c.count : c.count;
  Box box = selection.reached;
  narrow(c.position_columns, count, c.columns, &box.column_low, &box.column_high);
  if (c.position_rows)
    narrow(c.position_rows, count, c.rows, &box.row_low, &box.row_high);
  if (box.empty()) return {0, 0, 0, 0};
  return selection.flip ? flipped(box, c) : box;
}

int64_t tap_capacity(const dcls_convolution &c) {
  return std::max<int64_t>(1, std::min(4 * c.count, c.rows * c.columns));
}

int64_t canvas_bytes(const dcls_convolution &c) {
  const Canvas canvas(c, nullptr);
  const int64_t words = canvas.columns * canvas.words;
  return words * int64_t(sizeof *canvas.bits) +
         canvas.columns * canvas.rows * int64_t(sizeof *canvas.values) +
         tap_capacity(c) * int64_t(sizeof *canvas.list);
}

bool make_taps(const dcls_convolution &c, int64_t output, const Selection &selection,
               void *memory, const Windows &windows) {
  Canvas canvas(c, memory);
  const bool poisoned = add_elements(c, output, selection, canvas);

  // Lists the windows and counts those of each kind; then writes them in order.
  const Box reached =
      selection.flip ? flipped(selection.reached, c) : selection.reached;
  int32_t next[KINDS + 1] = {}, total = 0;
  for (int64_t i = 0; i < canvas.columns * canvas.words; ++i) {
    uint64_t bits = canvas.bits[i];
    if (!bits) continue;
    canvas.bits[i] = 0;
    const int64_t column = i / canvas.words - MARGIN, word = i % canvas.words;
    uint64_t inside = 0;
    if (column >= reached.column_low && column <= reached.column_high)
      inside = bits &
               bits_between(reached.row_low + MARGIN, reached.row_high + MARGIN, word);
    for (bits &= ~inside; bits; bits &= bits - 1)
      canvas.at(word * int64_t(WORD) + __builtin_ctzll(bits), column + MARGIN) = 0;
    while (inside) {
      const int start = __builtin_ctzll(inside);
      const uint64_t mask = (inside >> start) & 15;
      inside &= ~(mask << start);
      canvas.list[total++] = {int32_t(word * int64_t(WORD) + start) - MARGIN,
                              int32_t(column), int32_t(mask)};
      ++next[mask / 2 + 1];
    }
  }
  for (int kind = 0; kind < KINDS; ++kind) next[kind + 1] += next[kind];
  memcpy(windows.first, next, sizeof next);
  for (int32_t i = 0; i < total; ++i) {
    const Canvas::Listed &found = canvas.list[i];
    const int32_t at = next[found.mask / 2]++;
    windows.places[at] = {found.row, found.column};
    float *written = windows.values[at].rows;
    float *values = &canvas.at(found.row + MARGIN, found.column + MARGIN);
    if (canvas.words == 1) {  // what is not in the window is zero
      memcpy(written, values, sizeof(Values));
      memset(values, 0, sizeof(Values));
    } else {
      for (int t = 0; t < WINDOW_ROWS; ++t) {
        written[t] = 0;
        if (found.mask >> t & 1) std::swap(written[t], values[t]);
      }
    }
  }
  memset(canvas.list, 0, size_t(total) * sizeof *canvas.list);
  return poisoned;
}

void element_gradients(const dcls_convolution &c, int64_t output, const Taps &taps,
                       const float *tap_gradients, void *memory, float *grad_weight,
                       float *grad_rows, float *grad_columns) {
  Canvas canvas(c, memory);
  const auto each_tap = [&](auto &&set) {
    for (int kind = 0; kind < KINDS; ++kind)
      for (int32_t i = taps.first[kind]; i < taps.first[kind + 1]; ++i)
        for (int t = 0; t < WINDOW_ROWS; ++t)
          if (mask_of(kind) >> t & 1)
            set(canvas.at(taps.places[i].row + t + MARGIN,
                          taps.places[i].column + MARGIN));
  };
  each_tap([&](float &tap) { tap = *tap_gradients++; });

  Elements e;
  for (int64_t first = 0; first < c.count; first += TOGETHER) {
    const int64_t count = std::min<int64_t>(TOGETHER, c.count - first);
    e.place(c, output, first, count);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = output * c.count + first + i;
      const float weight = c.weight[at] / e.total[i];
      const Axis &row = e.row, &column = e.column;
      // The bilinear value between the taps' gradients, and its slope along each axis.
      float across[2], steps[2];
      for (int down = 0; down < 2; ++down) {
        const float *corner = &canvas.at(row.cell[i] + down, column.cell[i]);
        steps[down] = corner[canvas.rows] - corner[0];
        across[down] = corner[0] + column.fraction[i] * steps[down];
      }
      const float down = across[1] - across[0];
      const float right = steps[0] + row.fraction[i] * (steps[1] - steps[0]);
      const float poison = e.poison(i);
      const float value = (across[0] + row.fraction[i] * down) / e.total[i] + poison;
      const auto slope = [&](float plain, const Axis &axis, float other,
                             int64_t extent) {
        if (c.normalized) {
          const float of_total =
              float(axis.moved[i] < 0) - float(axis.moved[i] > float(extent - 1));
          plain -= value * of_total * other;
          plain = axis.fraction[i] == 0 ? 0 : plain;
        }
        return (axis.moved[i] == axis.center[i] ? plain * weight : 0) + poison;
      };
      grad_weight[at] = value;
      grad_columns[at] = slope(right, column, row.inside[i], c.columns);
      if (grad_rows) grad_rows[at] = slope(down, row, column.inside[i], c.rows);
    }
  }
  each_tap([](float &tap) { tap = 0; });
}

}  // namespace dcls
