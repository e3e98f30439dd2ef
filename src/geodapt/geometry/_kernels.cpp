/* Whole functions of float32 rows on the CPU, and their gradients: one pass over memory, every sum
   in double, or in float32 where the formula shows that this is enough.

   PyTorch's eager operators would write each float32 input out as float64 first. These loops
   convert in registers, so that double precision costs no memory traffic. The formulas are those
   of lorentz.py and poincare.py, where they are explained; the tests hold the two equal.

   Rows are contiguous and the batch is flattened. As many rows as a register has lanes are taken
   together: the sums of each, the formula for all of them at once, then the results. A formula is
   written once, for any number type: numbers give the values, dual numbers also the slopes. */
#include <cmath>
#include <cstddef>
#include <cstring>
#include <utility>
#include <vector>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#ifdef VECTOR_MATH /* the C library has exp and log for whole vectors */
extern "C" double exp(double) noexcept __attribute__((simd("notinbranch")));
extern "C" double log(double) noexcept __attribute__((simd("notinbranch")));
#endif

#define PRAGMA(text) _Pragma(#text)
#define INLINE inline __attribute__((always_inline))

namespace {

typedef std::ptrdiff_t size;

/* As many float32 numbers as become one register of doubles */
#ifdef __AVX512F__
constexpr size LANES = 8;
#else
constexpr size LANES = 4;
#endif
typedef float floats __attribute__((vector_size(4 * LANES)));
typedef double doubles __attribute__((vector_size(8 * LANES)));
typedef float wide __attribute__((vector_size(8 * LANES))); /* as many float32 as fill one, too */

INLINE doubles load(const float *from) { /* rows need not be aligned */
#ifdef __AVX512F__
  return (doubles)_mm512_cvtps_pd(_mm256_loadu_ps(from)); /* gcc 12 splits the general form */
#else
  floats v;
  std::memcpy(&v, from, sizeof v);
  return __builtin_convertvector(v, doubles);
#endif
}

INLINE void store(float *to, doubles v) {
#ifdef __AVX512F__
  _mm256_storeu_ps(to, _mm512_cvtpd_ps((__m512d)v));
#else
  const floats f = __builtin_convertvector(v, floats);
  std::memcpy(to, &f, sizeof f);
#endif
}

INLINE doubles load(const double *from) {
  doubles v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

INLINE void store(double *to, doubles v) { std::memcpy(to, &v, sizeof v); }

INLINE doubles halves(wide v) { /* added up, lane by lane */
  floats half[2];
  std::memcpy(half, &v, sizeof v);
  half[0] += half[1];
  float sum[LANES];
  std::memcpy(sum, half, sizeof sum);
  return load(sum);
}

/* The lane of two vectors' 2 LANES that goes to the given one when chunks of 2n lanes are halved */
constexpr size lane(size n, size to, size half) {
  return to / n % 2 * LANES + to / n / 2 * 2 * n + half * n + to % n;
}

template <size N, std::size_t... L>
INLINE doubles halved(doubles a, doubles b, std::index_sequence<L...>) {
#ifdef __clang__
  return __builtin_shufflevector(a, b, lane(N, L, 0)...) +
         __builtin_shufflevector(a, b, lane(N, L, 1)...);
#else
  typedef std::ptrdiff_t lanes __attribute__((vector_size(8 * LANES)));
  return __builtin_shuffle(a, b, lanes{lane(N, L, 0)...}) +
         __builtin_shuffle(a, b, lanes{lane(N, L, 1)...});
#endif
}

/* Each of LANES vectors added up: all in a transposition and three additions. */
template <size N = LANES / 2> INLINE doubles totals(const doubles *of) {
  doubles v[N];
  for (size r = 0; r < N; r++) /* row r meets row r + N */
    v[r] = halved<N>(of[r], of[r + N], std::make_index_sequence<LANES>());
  if constexpr (N == 1)
    return v[0];
  else
    return totals<N / 2>(v);
}

/* Numbers, one a lane, and the functions that formulas need of them. */
#define LANEWISE(name)                                                                        \
  INLINE doubles name(doubles v) {                                                            \
    double each[LANES];                                                                       \
    store(each, v);                                                                           \
    PRAGMA(omp simd)                                                                          \
    for (size l = 0; l < LANES; l++) each[l] = ::name(each[l]);                                \
    return load(each);                                                                        \
  }
LANEWISE(sqrt)
LANEWISE(exp)
LANEWISE(log)

INLINE doubles value(doubles a) { return a; }
INLINE doubles constant(double k, doubles) { return doubles{} + k; }

template <class Mask> INLINE doubles select(Mask m, doubles a, doubles b) { return m ? a : b; }

/* A number with its slopes by K variables */
template <int K> struct dual {
  doubles v, d[K];
};

template <int K, class Slope> INLINE dual<K> make(doubles v, Slope slope) {
  dual<K> out;
  out.v = v;
  for (int k = 0; k < K; k++) out.d[k] = slope(k);
  return out;
}

#define DUAL(of, v, slope)                                                                    \
  template <int K> INLINE dual<K> of {                                                        \
    return make<K>(v, [&](int k) __attribute__((always_inline)) -> doubles { return slope; }); \
  }
DUAL(operator+(dual<K> a, dual<K> b), a.v + b.v, a.d[k] + b.d[k])
DUAL(operator-(dual<K> a, dual<K> b), a.v - b.v, a.d[k] - b.d[k])
DUAL(operator*(dual<K> a, dual<K> b), a.v * b.v, a.d[k] * b.v + a.v * b.d[k])
DUAL(operator+(double a, dual<K> b), a + b.v, b.d[k])
DUAL(operator-(double a, dual<K> b), a - b.v, -b.d[k])
DUAL(operator*(double a, dual<K> b), a * b.v, a * b.d[k])
DUAL(operator-(dual<K> a), -a.v, -a.d[k])

template <int K> INLINE dual<K> chain(dual<K> a, doubles f, doubles slope) {
  return make<K>(f, [&](int k) __attribute__((always_inline)) { return slope * a.d[k]; });
}
template <int K> INLINE dual<K> inverse(dual<K> a) {
  const doubles f = 1.0 / a.v;
  return chain(a, f, -f * f);
}
template <int K> INLINE dual<K> operator/(dual<K> a, dual<K> b) { return a * inverse(b); }
template <int K> INLINE dual<K> operator/(double a, dual<K> b) { return a * inverse(b); }
template <int K> INLINE dual<K> sqrt(dual<K> a) { /* the slope at 0 is 0, as of a norm */
  const doubles f = sqrt(a.v);
  return chain(a, f, a.v == 0.0 ? doubles{} : 0.5 / f);
}
template <int K> INLINE dual<K> exp(dual<K> a) {
  const doubles f = exp(a.v);
  return chain(a, f, f);
}
template <int K> INLINE dual<K> log(dual<K> a) { return chain(a, log(a.v), 1.0 / a.v); }

template <int K> INLINE doubles value(dual<K> a) { return a.v; }
template <int K> INLINE dual<K> constant(double k, dual<K>) { return {doubles{} + k, {}}; }
template <class Mask, int K> INLINE dual<K> select(Mask m, dual<K> a, dual<K> b) {
  return make<K>(m ? a.v : b.v,
                 [&](int k) __attribute__((always_inline)) { return m ? a.d[k] : b.d[k]; });
}

template <class T> INLINE T larger(T a, T b) { return select(value(a) < value(b), b, a); }

/* Functions of s = z^2 as in _analytic.py: a series below NEAR, where it is exact to 1e-13. */
template <class T>
INLINE T series(T s, double a, double b, double e, double f, double g, T elsewhere) {
  const T near = 1.0 + s * (a + s * (b + s * (e + s * (f + g * s))));
  const doubles v = value(s);
  return select((v < 1e-2) & (v > -1e-2), near, elsewhere);
}

template <class T> INLINE T sinhc(T s) {
  const T z = sqrt(s), e = exp(z), far = (e - 1.0 / e) / (2.0 * z);
  return series(s, 1. / 6, 1. / 120, 1. / 5040, 1. / 362880, 1. / 39916800, far);
}

template <class T> INLINE T cosh(T s) {
  const T e = exp(sqrt(s)), far = 0.5 * (e + 1.0 / e);
  return series(s, 1. / 2, 1. / 24, 1. / 720, 1. / 40320, 1. / 3628800, far);
}

template <class T> INLINE T tanhc(T s) {
  const T z = sqrt(s), e = exp(-2.0 * z), far = (1.0 - e) / (z * (1.0 + e));
  return series(s, -1. / 3, 2. / 15, -17. / 315, 62. / 2835, -1382. / 155925, far);
}

template <class T> INLINE T asinhc(T s) {
  const T z = sqrt(s), far = log(z + sqrt(1.0 + s)) / z;
  return series(s, -1. / 6, 3. / 40, -5. / 112, 35. / 1152, -63. / 2816, far);
}

template <class T> INLINE T sech2(T s) {
  const T e = exp(-2.0 * sqrt(s)), far = 4.0 * e / ((1.0 + e) * (1.0 + e));
  return series(s, -1., 2. / 3, -17. / 45, 62. / 315, -1382. / 14175, far);
}

template <class T> INLINE T artanhc(T s) { return asinhc(s / (1.0 - s)) / sqrt(1.0 - s); }

template <class P, class T> INLINE T chord(P p, T c) {
  const T t = sqrt(1.0 + c * p.xx) + sqrt(1.0 + c * p.yy), t2 = t * t;
  return larger(p.dd - c * p.ds * (p.ds / t2), 4.0 * p.dd / t2);
}

template <class P, class T> INLINE T ball_chord(P p, T c) {
  return 4.0 * p.dd / ((1.0 - c * p.xx) * (1.0 - c * p.yy));
}

template <class T> INLINE T chord_to_distance(T q, T c) {
  return sqrt(q) * asinhc(0.25 * c * q);
}

/* poincare._inside, for float32 */
#define MARGIN 0x1p-23
#define LEAST (MARGIN * (2 - MARGIN))

template <class T> INLINE T inside(T factor, T delta) {
  const T lowered = factor * sqrt((1 - LEAST) / (1.0 - delta));
  return select(value(delta) < LEAST, lowered, factor);
}

/* A number, or the coefficients of x and y in a vector */
template <class T> struct result {
  T x, y;
};
template <class T> INLINE result<T> one(T x) { return {x, x}; }
template <class T> INLINE result<T> both(T x, T y) { return {x, y}; }

template <class T> INLINE result<T> mobius_sum(T delta_x, T delta_y, T together) {
  const T product = delta_x * delta_y, sum = product + together;
  const T inverse = inside(1.0 / sum, product / sum);
  return both((delta_x + together) * inverse, delta_x * inverse);
}

/* the factor that carries x, of tangent vector k x, into the ball */
template <class T> INLINE result<T> scaled(T k, T c, T xx) {
  const T s = c * k * k * xx;
  return one(k * inside(tanhc(s), sech2(s)));
}

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

#define FORMULA(...)                                                                          \
  []([[maybe_unused]] auto p, [[maybe_unused]] auto c,                                        \
     [[maybe_unused]] auto w) __attribute__((always_inline)) { __VA_ARGS__ }
#define KERNEL(name, sums, shape, ...)                                                        \
  extern "C" void name(const arguments *a) {                                                  \
    run<sums, shape>(a, FORMULA(__VA_ARGS__),                                                 \
                     [](const group &rows, auto formula) __attribute__((always_inline)) {     \
                       return exactly<sums>(rows, formula);                                   \
                     });                                                                      \
  }
#define QUICK_KERNEL(name, quick, quick_sums, sums, shape, ...)                               \
  extern "C" void name(const arguments *a) {                                                  \
    run<sums, shape>(a, FORMULA(__VA_ARGS__),                                                 \
                     [](const group &rows, auto formula) __attribute__((always_inline)) {     \
                       return quickly<quick_sums, sums>(rows, quick, formula);                \
                     });                                                                      \
  }

KERNEL(rows_square, alone, DOUBLE, return one(p.xx);)
KERNEL(rows_scale, alone, VECTOR, return one(w);)

KERNEL(manifold_norm2, products, NUMBER, {
  const auto gamma2 = 1.0 + c * p.xx;
  return one(larger(p.yy - c * p.xy * (p.xy / gamma2), p.yy / gamma2));
})
KERNEL(manifold_raised, products, VECTOR, return both(c * p.xy, constant(1.0, c));)

KERNEL(lorentz_time, alone, NUMBER, return one(sqrt(p.xx + 1.0 / c));)
constexpr auto quick_inner = FORMULA({
  const auto times = sqrt((p.xx + 1.0 / c) * (p.yy + 1.0 / c));
  return both(p.xy - times, times - 2.0 * p.xy); /* magnified: times / (times - xy) */
});
QUICK_KERNEL(lorentz_inner, quick_inner, products, gaps, NUMBER,
             return one(-1.0 / c - 0.5 * chord(p, c));)
constexpr auto quick_distance = FORMULA({ /* arcosh loses nothing but near 1 */
  const auto times = sqrt((p.xx + 1.0 / c) * (p.yy + 1.0 / c));
  const auto cosh = c * (times - p.xy), sinh = sqrt(cosh * cosh - 1.0), arc = log(cosh + sinh);
  return both(arc / sqrt(c), 2.0 * sinh * arc - c * times); /* magnified: c times / (sinh arc) */
});
QUICK_KERNEL(lorentz_distance, quick_distance, products, gaps, NUMBER,
             return one(chord_to_distance(chord(p, c), c));)
KERNEL(lorentz_pairwise_distance, gaps, PAIRS, return one(chord_to_distance(chord(p, c), c));)
KERNEL(lorentz_exp0, alone, VECTOR, return one(sinhc(c * p.xx));)
KERNEL(lorentz_log0, alone, VECTOR, return one(asinhc(c * p.xx));)
constexpr auto quick_to_poincare = FORMULA({
  return both(1.0 / (1.0 + sqrt(1.0 + c * p.xx)), 1.0 + 0.0 * p.xx); /* unless that is infinite */
});
QUICK_KERNEL(lorentz_to_poincare, quick_to_poincare, alone, alone, VECTOR,
             return one(1.0 / (1.0 + sqrt(1.0 + c * p.xx)));)

KERNEL(lorentz_exp, products, VECTOR, {
  const auto gamma2 = 1.0 + c * p.xx;
  const auto s = c * larger(p.yy - c * p.xy * (p.xy / gamma2), p.yy / gamma2);
  return both(cosh(s), sinhc(s));
})

KERNEL(lorentz_log, gaps, VECTOR, {
  const auto h = 0.25 * c * chord(p, c);
  const auto k = asinhc(h) / sqrt(1.0 + h);
  return both(-k * (1.0 + 2.0 * h), k);
})

KERNEL(lorentz_residual, gaps, VECTOR, {
  const auto k = 1.0 / sqrt((1.0 + w) * (1.0 + w) + w * c * chord(p, c));
  return both(k, k * w);
})

KERNEL(lorentz_transport, carried, VECTOR, { /* v + k (x + y) */
  const auto product = p.yv - p.xv * sqrt((1.0 + c * p.yy) / (1.0 + c * p.xx));
  return one(c * product / (2.0 + 0.5 * c * chord(p, c)));
})

KERNEL(poincare_distance, gaps, NUMBER, return one(chord_to_distance(ball_chord(p, c), c));)
KERNEL(poincare_pairwise_distance, gaps, PAIRS,
       return one(chord_to_distance(ball_chord(p, c), c));)
constexpr auto quick_radius = FORMULA({
  const auto z = sqrt(c * p.xx);
  return both(log((1.0 + z) / (1.0 - z)) / sqrt(c), select(z > 1e-6, 1.0 - 2.0 * z * z, -z));
});
QUICK_KERNEL(poincare_radius, quick_radius, alone, alone, NUMBER,
             return one(2.0 * sqrt(p.xx) * artanhc(c * p.xx));)
constexpr auto quick_conformal_factor = FORMULA({
  return both(2.0 / (1.0 - c * p.xx), 1.0 - 2.0 * c * p.xx); /* magnified: 1 / (1 - c xx) */
});
QUICK_KERNEL(poincare_conformal_factor, quick_conformal_factor, alone, alone, NUMBER,
             return one(2.0 / (1.0 - c * p.xx));)
KERNEL(poincare_log0, alone, VECTOR, return one(artanhc(c * p.xx));)
KERNEL(poincare_to_lorentz, alone, VECTOR, return one(2.0 / (1.0 - c * p.xx));)

KERNEL(poincare_exp0, alone, VECTOR, {
  const auto s = c * p.xx;
  return one(inside(tanhc(s), sech2(s)));
})
KERNEL(poincare_mobius_scalar, alone, VECTOR, return scaled(w * artanhc(c * p.xx), c, p.xx);)
/* here x is M x, and the weight |x|^2 */
KERNEL(poincare_mobius_image, alone, VECTOR, return scaled(artanhc(c * w), c, p.xx);)

KERNEL(poincare_project, alone, VECTOR, {
  const auto s = c * p.xx;
  return one(select(value(s) < 1.0, constant(1.0, s), (1 - MARGIN) / sqrt(s)));
})

KERNEL(poincare_mobius_add, products, VECTOR, {
  const auto delta_x = 1.0 - c * p.xx;
  const auto together = c * (p.xx + 2.0 * p.xy + p.yy);
  return mobius_sum(delta_x, 1.0 - c * p.yy, together);
})

KERNEL(poincare_exp, products, VECTOR, {
  const auto delta = 1.0 - c * p.xx;
  const auto s = c * p.yy / (delta * delta);
  const auto k = tanhc(s) / delta; /* the second summand is k v */
  const auto sum = mobius_sum(delta, sech2(s), c * (p.xx + 2.0 * k * p.xy + k * k * p.yy));
  return both(sum.x, sum.y * k);
})

KERNEL(poincare_log, gaps, VECTOR, {
  const auto delta = 1.0 - c * p.xx;
  const auto product = delta * (1.0 - c * p.yy);
  const auto h = c * p.dd / product;
  const auto k = delta * asinhc(h) / (sqrt(1.0 + h) * product);
  return both(-k * (delta + c * p.dd), k * delta);
})
