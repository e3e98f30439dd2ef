/* The sums over rows that formulas are made of, in double, or in float32 where that is enough. */
#pragma once
#include "formulas.hpp"

namespace {

/* What a kernel is given; _whole.py packs the same. */
struct arguments {
  const float *in[3];  /* the vectors */
  float *out;          /* values; where gradients are asked for NULL, and */
  const float *g;      /* the gradient of the values, */
  float *grad[3];      /* those of the vectors, NULL where not wanted, */
  double *by_c, *by_w; /* those of curvature and weight, one a row, NULL where not wanted */
  const double *c, *w; /* curvature, and a weight or factor: one a row, */
  double all_c, all_w; /* or where that is NULL one for all */
  size n, m, d;        /* rows, rows of y where all pairs are meant, dimensions */
  size threads;
};

/* A row in pieces of LANES numbers, the last as long as it happens to be. */
struct whole {
  INLINE doubles read(const float *from) { return load(from); }
  INLINE void write(float *to, doubles v) { store(to, v); }
};
struct rest {
  size count;
  INLINE doubles read(const float *from) const {
    float some[LANES] = {0};
    std::memcpy(some, from, count * sizeof *from);
    return load(some);
  }
  INLINE void write(float *to, doubles v) const {
    float some[LANES];
    store(some, v);
    std::memcpy(to, some, count * sizeof *to);
  }
};
template <class F> INLINE void along(size d, F f) {
  size k = 0;
  for (; k + LANES <= d; k += LANES) f(k, whole());
  if (k < d) f(k, rest{d - k});
}

/* The kinds of sums over rows. Each says of how many vectors, adds up a piece of them, names the
   sums as formulas use them, and has the gradients of the vectors: the coefficient of vector j in
   that of vector i, from the slopes by the sums. */
template <class T> struct alone {
  enum { VECTORS = 1, SUMS = 1 };
  T xx; /* |x|^2 */
  template <class V> static INLINE void add(V *s, const V *in) { s[0] += in[0] * in[0]; }
  static INLINE void finish(doubles *) {}
  static INLINE alone of(const T *s) { return {s[0]}; }
  static INLINE void gradient(const doubles *by, doubles (*of)[3]) { of[0][0] = 2.0 * by[0]; }
};

template <class T> struct products {
  enum { VECTORS = 2, SUMS = 3 };
  T xx, yy, xy; /* |x|^2, |y|^2, x.y */
  template <class V> static INLINE void add(V *s, const V *in) {
    s[0] += in[0] * in[0];
    s[1] += in[1] * in[1];
    s[2] += in[0] * in[1];
  }
  static INLINE void finish(doubles *) {}
  static INLINE products of(const T *s) { return {s[0], s[1], s[2]}; }
  static INLINE void gradient(const doubles *by, doubles (*of)[3]) {
    of[0][0] = 2.0 * by[0];
    of[1][1] = 2.0 * by[1];
    of[0][1] = of[1][0] = by[2];
  }
};

template <class T> struct gaps {
  enum { VECTORS = 2, SUMS = 4 };
  T xx, yy, dd, ds; /* and |x-y|^2, (x-y).(x+y), both exact for close points */
  static INLINE void add(doubles *s, const doubles *in) {
    const doubles gap = in[0] - in[1];
    s[1] += in[1] * in[1];
    s[2] += gap * gap;
    s[3] += gap * in[1];
  }
  static INLINE void finish(doubles *s) {
    s[3] = s[2] + 2.0 * s[3]; /* (x-y).(x+y) = |x-y|^2 + 2 (x-y).y */
    s[0] = s[1] + s[3];
  }
  static INLINE gaps of(const T *s) { return {s[0], s[1], s[2], s[3]}; }
  static INLINE void gradient(const doubles *by, doubles (*of)[3]) {
    of[0][0] = 2.0 * (by[0] + by[2] + by[3]);
    of[1][1] = 2.0 * (by[1] + by[2] - by[3]);
    of[0][1] = of[1][0] = -2.0 * by[2];
  }
};

template <class T> struct carried {
  enum { VECTORS = 3, SUMS = 6 };
  T xx, yy, dd, ds, xv, yv; /* and x.v, y.v */
  static INLINE void add(doubles *s, const doubles *in) {
    gaps<T>::add(s, in);
    s[4] += in[0] * in[2];
    s[5] += in[1] * in[2];
  }
  static INLINE void finish(doubles *s) { gaps<T>::finish(s); }
  static INLINE carried of(const T *s) { return {s[0], s[1], s[2], s[3], s[4], s[5]}; }
  static INLINE void gradient(const doubles *by, doubles (*of)[3]) {
    gaps<T>::gradient(by, of);
    of[0][2] = of[2][0] = by[4];
    of[1][2] = of[2][1] = by[5];
    of[2][2] = doubles{};
  }
};

/* What a row gives: a number, one in double, or a vector, which of three is v + x.. + y..; or what
   each pair of rows gives: a number. */
enum shape { NUMBER, DOUBLE, VECTOR, PAIRS };

/* Rows as many as there are lanes, the last one again where fewer are left */
struct group {
  const arguments *a;
  size first, count, x_step;
  static INLINE group at(const arguments *a, size first, size all, size x_step) {
    return {a, first, all - first < LANES ? all - first : LANES, x_step};
  }
  INLINE size row(size r) const { return first + (r < count ? r : count - 1); }
  static INLINE doubles scalars(const group &g, const double *each, double all) {
    if (!each) return doubles{} + all;
    double value[LANES];
    for (size r = 0; r < LANES; r++) value[r] = each[g.row(r)];
    return load(value);
  }
  INLINE doubles c() const { return scalars(*this, a->c, a->all_c); }
  INLINE doubles w() const { return scalars(*this, a->w, a->all_w); }
};

/* The sums of a group, and where the gradient of a vector is given its products with x and y. */
template <class S, bool WITH_G>
INLINE void add_up(const group &rows, doubles *sum, doubles *g_in) {
  enum { G = WITH_G ? S::VECTORS < 2 ? 1 : 2 : 0, ALL = S::SUMS + G };
  doubles part[ALL][LANES];
  const arguments *a = rows.a;
  for (size r = 0; r < LANES; r++) {
    const size at = rows.row(r) * a->d;
    const float *vector[3] = {a->in[0] + rows.row(r) * rows.x_step, a->in[1] + at, a->in[2] + at};
    doubles s[ALL] = {};
    along(a->d, [&](size k, auto piece) __attribute__((always_inline)) {
      doubles in[3];
      for (int i = 0; i < S::VECTORS; i++) in[i] = piece.read(vector[i] + k);
      S::add(s, in);
      if constexpr (WITH_G) {
        const doubles g = piece.read(a->g + at + k);
        for (int i = 0; i < G; i++) s[S::SUMS + i] += g * in[i];
      }
    });
    for (int i = 0; i < ALL; i++) part[i][r] = s[i];
  }
  for (int i = 0; i < S::SUMS; i++) sum[i] = totals(part[i]);
  for (int i = 0; i < G; i++) g_in[i] = totals(part[S::SUMS + i]);
  S::finish(sum);
}

/* The sums of a group in float32, which is twice as fast: pieces of 128 numbers, added in double. */
template <class S> INLINE void add_up_quickly(const group &rows, doubles *sum) {
  constexpr size WIDE = 2 * LANES, PIECE = 128;
  doubles part[S::SUMS][LANES];
  const arguments *a = rows.a;
  for (size r = 0; r < LANES; r++) {
    const size at = rows.row(r) * a->d, all = a->d - a->d % WIDE;
    const float *vector[2] = {a->in[0] + at, a->in[1] + at};
    doubles s[S::SUMS] = {};
    for (size k = 0; k < all;) {
      wide f[S::SUMS] = {};
      for (const size most = k + PIECE; k < all && k < most; k += WIDE) {
        wide in[S::VECTORS];
        for (int i = 0; i < S::VECTORS; i++) std::memcpy(in + i, vector[i] + k, sizeof *in);
        S::add(f, in);
      }
      for (int i = 0; i < S::SUMS; i++) s[i] += halves(f[i]);
    }
    if (all < a->d)
      along(a->d - all, [&](size k, auto piece) __attribute__((always_inline)) {
        doubles in[S::VECTORS];
        for (int i = 0; i < S::VECTORS; i++) in[i] = piece.read(vector[i] + all + k);
        S::add(s, in);
      });
    for (int i = 0; i < S::SUMS; i++) part[i][r] = s[i];
  }
  for (int i = 0; i < S::SUMS; i++) sum[i] = totals(part[i]);
}

} // namespace
