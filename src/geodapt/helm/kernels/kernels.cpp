/* The passes of a HELM's layer that are no products, and their gradients: one pass over memory each.

   Rows are contiguous. A row fits into the cache next to the core, so that a second loop over it
   costs little; what the formulas make of its sums (times, excesses, norms) is done in between, and
   costs nothing. The formulas are those of points.py; the tests hold the two equal. */
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif

#define INLINE inline __attribute__((always_inline))
#define PRAGMA(text) _Pragma(#text)
#define SIMD PRAGMA(omp simd)
#define SUM(...) PRAGMA(omp simd reduction(+ : __VA_ARGS__))

#ifdef VECTOR_MATH /* the C library has exp for whole vectors */
extern "C" float expf(float) noexcept __attribute__((simd("notinbranch")));
#endif

typedef std::ptrdiff_t size;

struct arguments {
  const float *in[3]; /* vectors, and factors of them */
  const float *g[2];  /* the gradients of what the function gives */
  float *out[3];      /* what the function gives, or the gradients of `in` */
  const std::int64_t *place; /* tokens x k: the rows among the experts' that are a token's */
  float *by;          /* for each scalar in turn, its gradients by row; or null */
  double scalars[5];
  size rows, d, stride, k, threads; /* stride: from a row to the next in feed-forward's inputs */
};

namespace {

template <class Body> INLINE void each_row(const arguments *a, Body body) {
  const size rows = a->rows;
  PRAGMA(omp parallel for num_threads(a->threads))
  for (size row = 0; row < rows; row++) body(row);
}

/* The time excess of a point, from the square of its norm, and its slopes */
struct excess {
  float u, by_square, by_radius, by_radius2;
  INLINE excess(float square, float radius, float radius2) {
    const float t = std::sqrt(square + radius2), k = 1 / (t + radius);
    u = square * k;
    by_radius = -u * k;
    by_radius2 = by_radius / (2 * t);
    by_square = k + by_radius2;
  }
};

INLINE float sigmoid(float x) { return 1 / (1 + expf(-x)); }

} // namespace

extern "C" {

/* scale / sqrt(q) (x + w y),  q = (1 + w)^2 + c max(0, bracket) */
void residual(const arguments *a) {
  const size d = a->d;
  const float w = a->scalars[0], scale = a->scalars[1], c = a->scalars[2], radius = a->scalars[3],
              radius2 = a->scalars[4];
  each_row(a, [=](size row) {
    const float *x = a->in[0] + row * d, *y = a->in[1] + row * d;
    float *out = a->out[0] + row * d;
    float xx = 0, yy = 0, ss = 0;
    SUM(xx, yy, ss)
    for (size j = 0; j < d; j++) {
      const float s = x[j] + w * y[j];
      xx += x[j] * x[j], yy += y[j] * y[j], ss += s * s;
    }
    const float m = 1 + w;
    const float u = excess(xx, radius, radius2).u + w * excess(yy, radius, radius2).u;
    const float bracket = u * (2 * m * radius + u) - ss;
    const float k = scale / std::sqrt(m * m + c * (bracket > 0 ? bracket : 0));
    SIMD
    for (size j = 0; j < d; j++) out[j] = k * (x[j] + w * y[j]);
  });
}

void residual_gradient(const arguments *a) {
  const size d = a->d, rows = a->rows;
  const float w = a->scalars[0], scale = a->scalars[1], c = a->scalars[2], radius = a->scalars[3],
              radius2 = a->scalars[4];
  each_row(a, [=](size row) {
    const float *x = a->in[0] + row * d, *y = a->in[1] + row * d, *g = a->g[0] + row * d;
    float *dx = a->out[0] + row * d, *dy = a->out[1] + row * d;
    float xx = 0, yy = 0, ss = 0, sy = 0, gs = 0, gy = 0;
    SUM(xx, yy, ss, sy, gs, gy)
    for (size j = 0; j < d; j++) {
      const float s = x[j] + w * y[j];
      xx += x[j] * x[j], yy += y[j] * y[j], ss += s * s, sy += s * y[j];
      gs += g[j] * s, gy += g[j] * y[j];
    }
    const float m = 1 + w;
    const excess ux(xx, radius, radius2), uy(yy, radius, radius2);
    const float u = ux.u + w * uy.u, bracket = u * (2 * m * radius + u) - ss;
    const float inside = bracket > 0 ? bracket : 0;
    const float norm = 1 / std::sqrt(m * m + c * inside), k = scale * norm;

    const float by_q = -0.5f * gs * k * norm * norm;
    const float by_bracket = bracket > 0 ? c * by_q : 0; /* and -by_bracket by ss */
    const float by_u = by_bracket * 2 * (m * radius + u);
    const float by_xx = by_u * ux.by_square, by_yy = by_u * w * uy.by_square;
    const float of_x = 2 * (by_xx - by_bracket), across = -2 * by_bracket * w;
    const float of_y = across * w + 2 * by_yy, wk = w * k;
    SIMD
    for (size j = 0; j < d; j++) {
      const float xj = x[j], yj = y[j], gj = g[j];
      dx[j] = k * gj + of_x * xj + across * yj;
      dy[j] = wk * gj + across * xj + of_y * yj;
    }
    if (!a->by) return;
    const float by_m = 2 * m * by_q + 2 * by_bracket * u * radius;
    a->by[row] = by_m + by_u * uy.u + k * gy - 2 * by_bracket * sy;
    a->by[rows + row] = gs * norm;
    a->by[2 * rows + row] = by_q * inside;
    a->by[3 * rows + row] =
        by_bracket * 2 * m * u + by_u * (ux.by_radius + w * uy.by_radius);
    a->by[4 * rows + row] = by_u * (ux.by_radius2 + w * uy.by_radius2);
  });
}

/* h = weight x / sqrt(|x|^2 / d + eps), and its time */
void norm(const arguments *a) {
  const size d = a->d;
  const float eps = a->scalars[0], radius2 = a->scalars[1];
  const float *weight = a->in[1];
  each_row(a, [=](size row) {
    const float *x = a->in[0] + row * d;
    float *h = a->out[0] + row * d, xx = 0, hh = 0;
    SUM(xx)
    for (size j = 0; j < d; j++) xx += x[j] * x[j];
    const float k = 1 / std::sqrt(xx / d + eps);
    SUM(hh)
    for (size j = 0; j < d; j++) {
      h[j] = k * x[j] * weight[j];
      hh += h[j] * h[j];
    }
    a->out[1][row] = std::sqrt(hh + radius2);
  });
}

void norm_gradient(const arguments *a) {
  const size d = a->d, rows = a->rows;
  const float eps = a->scalars[0], radius2 = a->scalars[1];
  const float *weight = a->in[1];
  float *by_weight = a->out[1];
  PRAGMA(omp parallel num_threads(a->threads))
  {
    std::vector<float> own(d); /* this thread's part of the weight's gradient */
    PRAGMA(omp for)
    for (size row = 0; row < rows; row++) {
      const float *x = a->in[0] + row * d, *g = a->g[0] + row * d;
      float *dx = a->out[0] + row * d, xx = 0, hh = 0, gh = 0;
      SUM(xx, hh, gh)
      for (size j = 0; j < d; j++) {
        const float h = x[j] * weight[j];
        xx += x[j] * x[j], hh += h * h, gh += g[j] * h;
      }
      const float k = 1 / std::sqrt(xx / d + eps), k2hh = k * k * hh;
      const float by_hh = a->g[1][row] / (2 * std::sqrt(k2hh + radius2));
      /* h reaches time, too: its gradient is g + 2 by_hh h */
      const float of_h = 2 * by_hh * k, of_x = k * k * (k * gh + 2 * by_hh * k2hh) / d;
      SIMD
      for (size j = 0; j < d; j++) {
        const float whole = k * (g[j] + of_h * x[j] * weight[j]);
        dx[j] = whole * weight[j] - of_x * x[j];
        own[j] += whole * x[j];
      }
      if (a->by) a->by[row] = by_hh;
    }
    PRAGMA(omp critical)
    for (size j = 0; j < d; j++) by_weight[j] += own[j];
  }
}

/* h = silu(gate) up, and |h|^2 */
void swiglu(const arguments *a) {
  const size d = a->d, stride = a->stride;
  each_row(a, [=](size row) {
    const float *gate = a->in[0] + row * stride, *up = a->in[1] + row * stride;
    float *h = a->out[0] + row * d, hh = 0;
    SUM(hh)
    for (size j = 0; j < d; j++) {
      h[j] = gate[j] * sigmoid(gate[j]) * up[j];
      hh += h[j] * h[j];
    }
    a->out[1][row] = hh;
  });
}

void swiglu_gradient(const arguments *a) {
  const size d = a->d, stride = a->stride;
  each_row(a, [=](size row) {
    const float *gate = a->in[0] + row * stride, *up = a->in[1] + row * stride;
    const float *g = a->g[0] + row * d, twice = 2 * a->g[1][row];
    float *by_gate = a->out[0] + row * stride, *by_up = a->out[1] + row * stride;
    SIMD
    for (size j = 0; j < d; j++) {
      const float open = sigmoid(gate[j]), linear = gate[j] * open;
      const float by_h = g[j] + twice * linear * up[j];
      by_up[j] = by_h * linear;
      by_gate[j] = by_h * up[j] * (open + linear * (1 - open));
    }
  });
}

/* To the experts: of each token x, factor x for each of its experts */
void dispatch(const arguments *a) {
  const size d = a->d, k = a->k;
  each_row(a, [=](size token) {
    const float *x = a->in[0] + token * d;
    for (size i = 0; i < k; i++) {
      const size row = a->place[token * k + i];
      const float factor = a->in[1][row];
      float *out = a->out[0] + row * d;
      SIMD
      for (size j = 0; j < d; j++) out[j] = factor * x[j];
    }
  });
}

void dispatch_gradient(const arguments *a) {
  const size d = a->d, k = a->k;
  each_row(a, [=](size token) {
    const float *x = a->in[0] + token * d;
    float *dx = a->out[0] + token * d;
    for (size j = 0; j < d; j++) dx[j] = 0;
    for (size i = 0; i < k; i++) {
      const size row = a->place[token * k + i];
      const float factor = a->in[1][row], *g = a->g[0] + row * d;
      float gx = 0;
      SUM(gx)
      for (size j = 0; j < d; j++) {
        dx[j] += factor * g[j];
        gx += g[j] * x[j];
      }
      a->out[1][row] = gx;
    }
  });
}

/* Back from them: of a token's results y, the sum of weight back y, and of weight u(back y) */
void combine(const arguments *a) {
  const size d = a->d, k = a->k;
  const float radius = a->scalars[0], radius2 = a->scalars[1];
  each_row(a, [=](size token) {
    float *out = a->out[0] + token * d, sum = 0;
    for (size j = 0; j < d; j++) out[j] = 0;
    for (size i = 0; i < k; i++) {
      const size row = a->place[token * k + i];
      const float back = a->in[1][row], weight = a->in[2][token * k + i], factor = weight * back;
      const float *y = a->in[0] + row * d;
      float yy = 0;
      SUM(yy)
      for (size j = 0; j < d; j++) {
        out[j] += factor * y[j];
        yy += y[j] * y[j];
      }
      sum += weight * excess(back * back * yy, radius, radius2).u;
    }
    a->out[1][token] = sum;
  });
}

void combine_gradient(const arguments *a) {
  const size d = a->d, k = a->k, rows = a->rows * k;
  const float radius = a->scalars[0], radius2 = a->scalars[1];
  each_row(a, [=](size token) {
    const float *g = a->g[0] + token * d, g_u = a->g[1][token];
    for (size i = 0; i < k; i++) {
      const size row = a->place[token * k + i];
      const float back = a->in[1][row], weight = a->in[2][token * k + i], factor = weight * back;
      const float *y = a->in[0] + row * d;
      float *dy = a->out[0] + row * d, yy = 0, gy = 0;
      SUM(yy, gy)
      for (size j = 0; j < d; j++) yy += y[j] * y[j], gy += g[j] * y[j];
      const excess u(back * back * yy, radius, radius2);
      const float by_u = weight * g_u, by_square = by_u * u.by_square;
      const float of_y = 2 * by_square * back * back;
      SIMD
      for (size j = 0; j < d; j++) dy[j] = factor * g[j] + of_y * y[j];
      a->out[1][row] = weight * gy + 2 * by_square * back * yy;
      a->out[2][token * k + i] = back * gy + u.u * g_u;
      if (!a->by) continue;
      a->by[row] = by_u * u.by_radius;
      a->by[rows + row] = by_u * u.by_radius2;
    }
  });
}

} // extern "C"
