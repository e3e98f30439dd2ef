/* The passes over memory: a function's values, its gradients, all pairs of rows. */
#pragma once
#include <vector>

#include "sums.hpp"

namespace {

template <template <class> class Sums, class Formula>
INLINE result<doubles> exactly(const group &rows, Formula formula) {
  typedef Sums<doubles> S;
  doubles sum[S::SUMS];
  add_up<S, false>(rows, sum, nullptr);
  return formula(S::of(sum), rows.c(), rows.w());
}

/* A quick formula gives, of float32 sums, a number or factor, and a second number that is above 0
   where it at most doubles their errors. All other rows are computed exactly; what a row gives does
   not depend on its neighbours. */
template <template <class> class QuickSums, template <class> class Sums, class Quick, class Formula>
INLINE result<doubles> quickly(const group &rows, Quick quick, Formula formula) {
  typedef QuickSums<doubles> S;
  doubles sum[S::SUMS];
  add_up_quickly<S>(rows, sum);
  const result<doubles> k = quick(S::of(sum), rows.c(), rows.w());
  const auto good = (k.y > 0.0) & (k.x - k.x == 0.0); /* and finite */
  bool all = true;
  for (size l = 0; l < LANES; l++) all &= good[l] != 0;
  return all ? k : one(select(good, k.x, exactly<Sums>(rows, formula).x));
}

template <int VECTORS, shape SHAPE> INLINE void write(const group &rows, result<doubles> k) {
  const arguments *a = rows.a;
  double of[2][LANES];
  store(of[0], k.x), store(of[1], k.y);
  for (size r = 0; r < rows.count; r++) {
    const size at = (rows.first + r) * a->d;
    const float *x = a->in[0] + at, *y = a->in[1] + at, *v = a->in[2] + at;
    float *out = a->out + at;
    if (SHAPE == NUMBER) {
      a->out[rows.first + r] = (float)of[0][r];
    } else if (SHAPE == DOUBLE) {
      ((double *)a->out)[rows.first + r] = of[0][r];
    } else if (VECTORS == 1) { /* in float32, rounded once: the factor in two parts */
      const float high = (float)of[0][r], low = (float)(of[0][r] - high);
      PRAGMA(omp simd)
      for (size j = 0; j < a->d; j++) out[j] = __builtin_fmaf(high, x[j], low * x[j]);
    } else {
      const doubles p = doubles{} + of[0][r], q = doubles{} + of[1][r];
      along(a->d, [&](size k, auto piece) __attribute__((always_inline)) {
        const doubles sum = p * piece.read(x + k) + q * piece.read(y + k);
        piece.write(out + k, VECTORS == 2 ? sum : sum + piece.read(v + k));
      });
    }
  }
}

template <template <class> class Sums, shape SHAPE, class Formula>
INLINE void gradients(const group &rows, Formula formula, double *of_x = nullptr) {
  typedef Sums<doubles> S;
  enum { K = S::SUMS + 2 };
  typedef dual<K> number;
  const arguments *a = rows.a;
  doubles sum[S::SUMS], g_in[2];
  add_up<S, SHAPE == VECTOR>(rows, sum, g_in);
  number seed[K];
  for (int i = 0; i < K; i++)
    seed[i] = make<K>(i < S::SUMS ? sum[i] : i == S::SUMS ? rows.c() : rows.w(),
                      [&](int k) { return doubles{} + (k == i ? 1.0 : 0.0); });
  const result<number> f = formula(Sums<number>::of(seed), seed[S::SUMS], seed[S::SUMS + 1]);
  doubles by[K], of[3][3];
  if (SHAPE != VECTOR) {
    double g[LANES];
    for (size r = 0; r < LANES; r++) {
      const size row = rows.row(r);
      g[r] = SHAPE == DOUBLE ? ((const double *)a->g)[row] : a->g[row];
    }
    for (int k = 0; k < K; k++) by[k] = load(g) * f.x.d[k];
  } else {
    for (int k = 0; k < K; k++)
      by[k] = g_in[0] * f.x.d[k] + (S::VECTORS > 1 ? g_in[1] * f.y.d[k] : doubles{});
  }
  S::gradient(by, of);
  double each[3][3][LANES], of_g[3][LANES], by_c[LANES], by_w[LANES];
  for (int i = 0; i < S::VECTORS; i++)
    for (int j = 0; j < S::VECTORS; j++) store(each[i][j], of[i][j]);
  store(of_g[0], f.x.v), store(of_g[1], f.y.v), store(of_g[2], doubles{} + 1.0);
  store(by_c, by[S::SUMS]), store(by_w, by[S::SUMS + 1]);
  for (size r = 0; r < rows.count; r++) {
    const size row = rows.first + r, at = row * a->d;
    if (a->by_c) a->by_c[row] = by_c[r];
    if (a->by_w) a->by_w[row] = by_w[r];
    if (of_x) { /* of the one row of x: what all rows of y make of it */
      const doubles p = doubles{} + each[0][0][r], q = doubles{} + each[0][1][r];
      along(a->d, [&](size k, auto piece) __attribute__((always_inline)) {
        const doubles sum = p * piece.read(a->in[0] + k) + q * piece.read(a->in[1] + at + k);
        store(of_x + k, load(of_x + k) + sum);
      });
      continue;
    }
    along(a->d, [&](size k, auto piece) __attribute__((always_inline)) {
      doubles in[3], g = {};
      for (int i = 0; i < S::VECTORS; i++) in[i] = piece.read(a->in[i] + at + k);
      if (SHAPE == VECTOR) g = piece.read(a->g + at + k);
      for (int i = 0; i < S::VECTORS; i++) {
        if (!a->grad[i]) continue;
        doubles sum = each[i][0][r] * in[0];
        for (int j = 1; j < S::VECTORS; j++) sum += each[i][j][r] * in[j];
        if (SHAPE == VECTOR) sum += of_g[i][r] * g;
        piece.write(a->grad[i] + at + k, sum);
      }
    });
  }
}

/* One row of x with each of y; the gradients are those of x, and of c one a pair. */
template <template <class> class Sums, class Formula>
INLINE void one_with_all(arguments a, size row, Formula formula) {
  a.in[0] += row * a.d;
  if (a.c) a.c += row * a.m;
  if (a.w) a.w += row * a.m;
  if (a.out) a.out += row * a.m;
  if (a.g) a.g += row * a.m;
  if (a.by_c) a.by_c += row * a.m;
  if (a.by_w) a.by_w += row * a.m;
  std::vector<double> of_x(a.out ? 0 : a.d + LANES);
  for (size first = 0; first < a.m; first += LANES) {
    const group rows = group::at(&a, first, a.m, 0);
    if (a.out)
      write<Sums<doubles>::VECTORS, NUMBER>(rows, exactly<Sums>(rows, formula));
    else
      gradients<Sums, NUMBER>(rows, formula, of_x.data());
  }
  if (a.grad[0])
    for (size k = 0; k < a.d; k++) a.grad[0][row * a.d + k] = (float)of_x[k];
}

template <template <class> class Sums, shape SHAPE, class Formula, class Values>
INLINE void run(const arguments *a, Formula formula, Values values) {
  PRAGMA(omp parallel for schedule(static) num_threads(a->threads) if (a->threads > 1))
  for (size first = 0; first < a->n; first += SHAPE == PAIRS ? 1 : LANES) {
    if constexpr (SHAPE == PAIRS) {
      one_with_all<Sums>(*a, first, formula);
    } else {
      const group rows = group::at(a, first, a->n, a->d);
      if (a->out)
        write<Sums<doubles>::VECTORS, SHAPE>(rows, values(rows, formula));
      else
        gradients<Sums, SHAPE>(rows, formula);
    }
  }
}

} // namespace
