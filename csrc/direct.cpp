// The interface: plans tiles and tasks, and runs them on the threads of the process.
#include "direct.h"

#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <atomic>

#include "job.h"
#include "taps.h"

namespace dcls {
namespace {

// What a tile of the scratch memory should stay in: three quarters of a small L2 cache.
constexpr int64_t TILE_FLOATS = 384 * 1024 / 4;
constexpr int64_t TILE_COLUMNS = 128;
constexpr int64_t LINE_COLUMNS = 4096;

// Channels of a task: a cache line of channels_last memory.
constexpr int64_t UNIT = 16;

// Outputs of a task that makes taps or gradients of elements.
constexpr int64_t OUTPUTS = 16;

// Into how many tasks the gradient of the taps is divided, if there are tiles enough.
// Depends on no number of threads, nor do the sums.
constexpr int64_t SUM_TASKS = 64;

// Memory that a thread keeps from call to call: fresh pages would cost more than small
// convolutions.
class Memory {
 public:
  ~Memory() { free(data_); }

  // Null if there is too little. Zero at first, then what the last user has left.
  template <class T>
  T *get(int64_t count) {
    const size_t bytes = size_t(round_up(count * int64_t(sizeof(T)), 64));
    if (bytes > bytes_) {
      free(data_);
      data_ = aligned_alloc(64, bytes);
      bytes_ = data_ ? bytes : 0;
      if (data_) memset(data_, 0, bytes);
    }
    return static_cast<T *>(data_);
  }

 private:
  void *data_ = nullptr;
  size_t bytes_ = 0;
};

thread_local Memory scratch_memory, canvas_memory, taps_memory, first_memory,
    places_memory, values_memory, partial_memory;

// Calls body(task) for all tasks, on the threads that the caller gives; each takes the
// next task when it is done. Returns whether all calls did.
template <class Body>
bool run(const dcls_convolution &c, int64_t tasks, Body body) {
  struct Shared {
    Body *body;
    int64_t tasks;
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
  } shared;
  shared.body = &body;
  shared.tasks = tasks;
  const auto work = [](void *argument) {
    Shared &all = *static_cast<Shared *>(argument);
    for (int64_t task; (task = all.next.fetch_add(1)) < all.tasks;)
      if (!(*all.body)(task)) all.failed = true;
  };
  const int64_t threads = std::min(c.threads, tasks);
  if (c.parallel && threads > 1)
    c.parallel(work, &shared, unsigned(threads), 0);
  else
    work(&shared);
  return !shared.failed;
}

const Kernels *best_kernels() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return avx512_kernels;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return avx2_kernels;
#endif
  return plain_kernels;
}

std::atomic<const Kernels *> selected{best_kernels()};

bool transposed(const dcls_image &image) {
  return image.strides[1] == 1 && image.strides[3] != 1;
}

// Keeps planes off the same places in the cache: an odd number of lines each. One of
// them is room for what is written beyond the end of a row.
int64_t plane_size(int64_t floats) {
  const int64_t lines = round_up(floats, MOST_LANES) / MOST_LANES + 1;
  return (lines | 1) * MOST_LANES;
}

// Sets the layout of the scratch memory for a tile of these rows and columns.
void lay_out(Job &job, int64_t rows, int64_t columns, const Kernels &kernels) {
  const Box &box = job.box;
  job.tile_rows = rows;
  job.tile_columns = columns;
  const int64_t covered =
      round_up(columns, job.line ? kernels.lanes * kernels.rows : kernels.lanes);
  const int64_t covered_rows = job.line ? 1 : round_up(rows, kernels.rows);
  // The image's first column is aligned, in the tiles that have it.
  const int64_t before = std::max<int64_t>(0, job.left - box.column_low);
  job.in.lead = round_up(before, MOST_LANES) - before;
  job.in.stride =
      round_up(job.in.lead + covered + box.column_high - box.column_low, MOST_LANES);
  job.in.plane =
      plane_size(job.in.stride * (covered_rows + box.row_high - box.row_low));
  job.out.lead = 0;
  job.out.stride = round_up(covered, MOST_LANES);
  job.out.plane = plane_size(job.out.stride * covered_rows);
}

int64_t divide_up(int64_t value, int64_t by) { return (value + by - 1) / by; }

// Chooses the number of groups in a task, and the tiles.
void plan(Job &job, const Kernels &kernels) {
  job.line = job.out_height == 1 && job.box.row_low == job.box.row_high;
  const bool whole_lines = transposed(*job.source) || transposed(*job.target);
  const int64_t most = job.line ? LINE_COLUMNS : TILE_COLUMNS;
  job.tiles_across = divide_up(job.out_width, most);
  const int64_t columns =
      round_up(divide_up(job.out_width, job.tiles_across), kernels.lanes);
  const int64_t all_rows = job.line ? 1 : round_up(job.out_height, kernels.rows);

  job.unit = std::min(UNIT, job.groups);
  lay_out(job, all_rows, columns, kernels);
  while (!whole_lines && job.unit > 1 && job.scratch_floats() > TILE_FLOATS)
    job.unit /= 2;
  int64_t tiles = 1;
  while (job.scratch_floats() > TILE_FLOATS && job.tile_rows > kernels.rows) {
    ++tiles;
    lay_out(job, round_up(divide_up(job.out_height, tiles), kernels.rows), columns,
            kernels);
  }
  job.tiles_down = divide_up(job.out_height, job.tile_rows);
  job.units = divide_up(job.groups, job.unit);
}

// Makes the taps of all elements, in memory of the calling thread.
bool make_all_taps(const dcls_convolution &c, const Selection &selection, Job &job) {
  const int64_t outputs = c.channels * c.multiplier;
  job.capacity = tap_capacity(c);
  job.box = bounding_box(c, selection);
  Taps *taps = taps_memory.get<Taps>(outputs);
  int32_t *first = first_memory.get<int32_t>(outputs * (KINDS + 1));
  Place *places = places_memory.get<Place>(outputs * job.capacity);
  Values *values = values_memory.get<Values>(outputs * job.capacity);
  if (!taps || !first || !places || !values) return false;
  job.taps = taps;
  return run(c, divide_up(outputs, OUTPUTS), [&](int64_t task) {
    void *canvas = canvas_memory.get<char>(canvas_bytes(c));
    if (!canvas) return false;
    for (int64_t o = task * OUTPUTS; o < std::min(outputs, (task + 1) * OUTPUTS); ++o) {
      const Windows windows = {first + o * (KINDS + 1), places + o * job.capacity,
                               values + o * job.capacity};
      const bool poisoned = make_taps(c, o, selection, canvas, windows);
      taps[o] = {windows.first, windows.places, windows.values, poisoned};
    }
    return true;
  });
}

// Takes the windows that the convolution has been given, where they are.
bool take_taps(const dcls_convolution &c, Job &job) {
  const int64_t outputs = c.channels * c.multiplier;
  Taps *taps = taps_memory.get<Taps>(outputs);
  if (!taps) return false;
  job.taps = taps;
  for (int64_t o = 0; o < outputs; ++o)
    taps[o] = {c.kinds + o * (KINDS + 1), reinterpret_cast<const Place *>(c.places),
               reinterpret_cast<const Values *>(c.values), false};
  return true;
}

bool convolve(const dcls_convolution &c, Job &job) {
  const Kernels &kernels = *selected.load();
  plan(job, kernels);
  return run(c, job.batch * job.units * job.tiles(), [&](int64_t task) {
    float *scratch = scratch_memory.get<float>(job.scratch_floats());
    if (scratch) kernels.convolve(job, task, scratch);
    return scratch != nullptr;
  });
}

bool any(const dcls_convolution &c) {
  return c.batch > 0 && c.channels > 0 && c.multiplier > 0;
}

// From images to outputs, also for the sums over both.
Job forward_job(const dcls_convolution &c, const dcls_image *x, const dcls_image *y) {
  Job job = {};
  job.batch = c.batch;
  job.groups = c.channels;
  job.sources = 1;
  job.targets = c.multiplier;
  job.height = c.height;
  job.width = c.width;
  job.out_height = c.out_height;
  job.out_width = c.out_width;
  job.top = c.top;
  job.left = c.left;
  job.source = x;
  job.target = y;
  return job;
}

}  // namespace
}  // namespace dcls

using namespace dcls;

int dcls_forward(const dcls_convolution *convolution, const dcls_image *x,
                 const float *bias, const dcls_image *y) {
  const dcls_convolution &c = *convolution;
  Job job = forward_job(c, x, y);
  if (!c.weight && !box_of_windows(c, &job.box)) return 2;
  if (!any(c) || c.out_height < 1 || c.out_width < 1) return 0;
  job.bias = bias;
  const bool ready = c.weight ? make_all_taps(c, {reached_taps(c), false, false}, job)
                              : take_taps(c, job);
  return !(ready && convolve(c, job));
}

// A convolution of grad_y with the flipped kernels.
int dcls_input_gradient(const dcls_convolution *convolution, const dcls_image *grad_y,
                        const dcls_image *grad_x) {
  const dcls_convolution &c = *convolution;
  if (!any(c) || c.height < 1 || c.width < 1) return 0;
  Job job = {};
  job.batch = c.batch;
  job.groups = c.channels;
  job.sources = c.multiplier;
  job.targets = 1;
  job.height = c.out_height;
  job.width = c.out_width;
  job.out_height = c.height;
  job.out_width = c.width;
  job.top = c.rows - 1 - c.top;
  job.left = c.columns - 1 - c.left;
  job.source = grad_y;
  job.target = grad_x;
  return !(make_all_taps(c, {reached_taps(c), true, false}, job) && convolve(c, job));
}

int dcls_element_gradients(const dcls_convolution *convolution, const dcls_image *x,
                           const dcls_image *grad_y, float *grad_weight,
                           float *grad_rows, float *grad_columns, float *grad_bias) {
  const dcls_convolution &c = *convolution;
  if (c.channels < 1 || c.multiplier < 1) return 0;
  const Kernels &kernels = *selected.load();
  const Selection selection = {reached_taps(c), false, true};
  const int64_t outputs = c.channels * c.multiplier;
  Job job = forward_job(c, x, grad_y);
  if (!make_all_taps(c, selection, job)) return 1;
  plan(job, kernels);
  job.chunks = std::max<int64_t>(
      1, std::min(job.batch * job.tiles(), divide_up(SUM_TASKS, job.units)));
  const int64_t sums = job.capacity + 1;
  job.partial = partial_memory.get<float>(job.chunks * outputs * sums);
  if (!job.partial) return 1;
  const int64_t vectors = round_up(sums, kernels.lanes) * kernels.lanes;
  const bool done = run(c, job.units * job.chunks, [&](int64_t task) {
    float *scratch = scratch_memory.get<float>(job.scratch_floats() + vectors);
    if (scratch) kernels.correlate(job, task, scratch);
    return scratch != nullptr;
  });
  if (!done) return 1;

  // The chunks' sums, in order, into those of the first; then the elements' gradients.
  return !run(c, divide_up(outputs, OUTPUTS), [&](int64_t task) {
    void *canvas = canvas_memory.get<char>(canvas_bytes(c));
    if (!canvas) return false;
    for (int64_t o = task * OUTPUTS; o < std::min(outputs, (task + 1) * OUTPUTS); ++o) {
      float *total = job.partial + o * sums;
      for (int64_t chunk = 1; chunk < job.chunks; ++chunk) {
        const float *more = total + chunk * outputs * sums;
        for (int64_t i = 0; i < sums; ++i) total[i] += more[i];
      }
      int64_t taps = 0;
      for (int kind = 0; kind < KINDS; ++kind)
        taps += __builtin_popcount(mask_of(kind)) *
                (job.taps[o].first[kind + 1] - job.taps[o].first[kind]);
      if (grad_bias) grad_bias[o] = total[taps];
      element_gradients(c, o, job.taps[o], total, canvas, grad_weight, grad_rows,
                        grad_columns);
    }
    return true;
  });
}

const char *dcls_instructions(const char *wanted) {
  const Kernels *best = best_kernels(), *found = wanted ? nullptr : best;
#if defined(__x86_64__)
  const Kernels *const all[] = {plain_kernels, avx2_kernels, avx512_kernels};
  for (const Kernels *kernels : all) {
    if (wanted && !strcmp(kernels->name, wanted)) found = kernels;
    if (kernels == best) break;
  }
#else
  if (wanted && !strcmp(best->name, wanted)) found = best;
#endif
  if (found) selected = found;
  return found ? found->name : nullptr;
}
