/* Whole functions of float32 rows on the CPU: one pass over memory, every sum in double.

   PyTorch's eager operators would write each float32 input out as float64 first. These loops
   convert in registers, so that double precision costs no memory traffic. The formulas are those
   of lorentz.py and poincare.py, where they are explained; the tests hold the two equal.

   Rows are contiguous and the batch is flattened. They are taken in blocks: the sums of each row,
   then the formula for all of them at once, then the results. */
#include <math.h>
#include <stddef.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#ifdef VECTOR_MATH /* the C library has exp and log for whole vectors */
double exp(double) __attribute__((simd("notinbranch")));
double log(double) __attribute__((simd("notinbranch")));
#endif

#define PRAGMA(text) _Pragma(#text)
#define INLINE static inline __attribute__((always_inline))

typedef ptrdiff_t size;
enum { BLOCK = 16 };

/* As many float32 numbers as become one register of doubles */
#ifdef __AVX512F__
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
typedef float floats __attribute__((vector_size(4 * LANES)));
typedef double doubles __attribute__((vector_size(8 * LANES)));

INLINE doubles load(const float *from) { /* rows need not be aligned */
#ifdef __AVX512F__
  return (doubles)_mm512_cvtps_pd(_mm256_loadu_ps(from)); /* gcc 12 splits the general form */
#else
  floats v;
  memcpy(&v, from, sizeof v);
  return __builtin_convertvector(v, doubles);
#endif
}

INLINE double total(doubles v) {
  double halves[4];
  for (int l = 0; l < 4; l++) halves[l] = LANES == 8 ? v[l] + v[l + LANES - 4] : v[l];
  return (halves[0] + halves[1]) + (halves[2] + halves[3]);
}

INLINE doubles dot_row(const float *x, const float *y, size d) {
  doubles a = {0}, b = {0}, e = {0}, f = {0}; /* four, to hide the latency of a multiply-add */
  size k = 0;
  for (; k + 4 * LANES <= d; k += 4 * LANES) {
    a += load(x + k) * load(y + k);
    b += load(x + k + LANES) * load(y + k + LANES);
    e += load(x + k + 2 * LANES) * load(y + k + 2 * LANES);
    f += load(x + k + 3 * LANES) * load(y + k + 3 * LANES);
  }
  for (; k + LANES <= d; k += LANES) a += load(x + k) * load(y + k);
  for (; k < d; k++) a[0] += (double)x[k] * y[k];
  return (a + b) + (e + f);
}

/* |x|^2, |y|^2, x.y, |x-y|^2, (x-y).(x+y); the compiler drops those that a formula leaves out */
typedef struct { double xx, yy, xy, dd, ds; } sums;
typedef struct { doubles xx, yy, xy, dd, ds; } partial_sums;

INLINE partial_sums sums_row(const float *x, const float *y, size d) {
  partial_sums p = {{0}, {0}, {0}, {0}, {0}};
  size k = 0;
  for (; k + LANES <= d; k += LANES) {
    doubles u = load(x + k), v = load(y + k), w = u - v;
    p.xx += u * u;
    p.yy += v * v;
    p.xy += u * v;
    p.dd += w * w;
    p.ds += w * (u + v);
  }
  for (; k < d; k++) {
    double u = x[k], v = y[k], w = u - v;
    p.xx[0] += u * u;
    p.yy[0] += v * v;
    p.xy[0] += u * v;
    p.dd[0] += w * w;
    p.ds[0] += w * (u + v);
  }
  return p;
}

/* Functions of s = z^2 as in _analytic.py: a series below NEAR, where it is exact to 1e-13. */
#define NEAR 1e-2
#define SERIES(s, a, b, e, f, g) (1 + s * (a + s * (b + s * (e + s * (f + s * (g))))))

INLINE double sinhc(double s) {
  double z = sqrt(s), e = exp(z), far = (e - 1 / e) / (2 * z);
  return fabs(s) < NEAR ? SERIES(s, 1. / 6, 1. / 120, 1. / 5040, 1. / 362880, 1. / 39916800) : far;
}

INLINE double coshc(double s) {
  double e = exp(sqrt(s));
  return (e + 1 / e) / 2;
}

INLINE double tanhc(double s) {
  double z = sqrt(s), e = exp(-2 * z), far = (1 - e) / (z * (1 + e));
  return fabs(s) < NEAR
             ? SERIES(s, -1. / 3, 2. / 15, -17. / 315, 62. / 2835, -1382. / 155925)
             : far;
}

INLINE double asinhc(double s) {
  double z = sqrt(s), far = log(z + sqrt(1 + s)) / z;
  return fabs(s) < NEAR ? SERIES(s, -1. / 6, 3. / 40, -5. / 112, 35. / 1152, -63. / 2816) : far;
}

INLINE double sech2(double s) {
  double e = exp(-2 * sqrt(s));
  return 4 * e / ((1 + e) * (1 + e));
}

INLINE double artanhc(double s) { return asinhc(s / (1 - s)) / sqrt(1 - s); }

INLINE double larger(double a, double b) { return a < b ? b : a; }

INLINE double chord(sums p, double c) {
  double t = sqrt(1 + c * p.xx) + sqrt(1 + c * p.yy), t2 = t * t;
  return larger(p.dd - c * p.ds * (p.ds / t2), 4 * p.dd / t2);
}

INLINE double ball_chord(sums p, double c) {
  return 4 * p.dd / ((1 - c * p.xx) * (1 - c * p.yy));
}

INLINE double chord_to_distance(double q, double c) { return sqrt(q) * asinhc(c * q / 4); }

/* poincare._inside, for float32 */
#define MARGIN 0x1p-23
#define LEAST (MARGIN * (2 - MARGIN))

INLINE double inside(double factor, double delta) {
  double lower = sqrt((1 - LEAST) / (1 - delta));
  return delta < LEAST ? factor * lower : factor;
}

typedef struct { double x, y; } pair; /* a result, or the coefficients of x and y in it */

INLINE pair mobius_sum(double delta_x, double delta_y, double together, double k) {
  double product = delta_x * delta_y, sum = product + together;
  double inverse = inside(1 / sum, product / sum);
  return (pair){(delta_x + together) * inverse, delta_x * k * inverse};
}

/* What a kernel is given; _native.py has the same structure. */
typedef struct {
  const float *x, *y, *z;
  float *out;
  const double *c, *w;  /* curvature, and a weight or factor: */
  size c_step, w_step;  /* one for all rows (step 0) or one a row (step 1) */
  size n, m, d;         /* rows, rows of y where all pairs are meant, dimensions */
  int threads;
} arguments;

typedef pair formula(sums p, double c, double w);

INLINE size rows_in(const arguments *a, size first) {
  return a->n - first < BLOCK ? a->n - first : BLOCK;
}

/* Each row's lanes added up: a transposition and three additions for eight rows at once. */
INLINE void totals(const doubles partial[BLOCK], double sum[BLOCK]) {
  double lanes[BLOCK * LANES];
  memcpy(lanes, partial, sizeof lanes);
  PRAGMA(omp simd)
  for (size r = 0; r < BLOCK; r++) {
    const double *l = lanes + r * LANES;
    sum[r] = (l[0] + l[1]) + (l[2] + l[3]);
    if (LANES == 8) sum[r] += (l[4 % LANES] + l[5 % LANES]) + (l[6 % LANES] + l[7 % LANES]);
  }
}

/* The formula for a block of rows from their sums, as few sums as it needs. */
INLINE void evaluate(const arguments *a, size first, int two, formula f, pair result[BLOCK]) {
  doubles xx[BLOCK], yy[BLOCK], xy[BLOCK], dd[BLOCK], ds[BLOCK];
  double p[5][BLOCK] = {{0}}, c[BLOCK], w[BLOCK], u[BLOCK], v[BLOCK];
  const size rows = rows_in(a, first);
  for (size r = 0; r < BLOCK; r++) {
    const size i = first + (r < rows ? r : rows - 1); /* the last row fills a block */
    const float *x = a->x + i * a->d;
    if (two) {
      const partial_sums p = sums_row(x, a->y + i * a->d, a->d);
      xx[r] = p.xx, yy[r] = p.yy, xy[r] = p.xy, dd[r] = p.dd, ds[r] = p.ds;
    } else {
      xx[r] = dot_row(x, x, a->d);
    }
    c[r] = a->c[i * a->c_step];
    w[r] = a->w[i * a->w_step];
  }
  totals(xx, p[0]);
  if (two) totals(yy, p[1]), totals(xy, p[2]), totals(dd, p[3]), totals(ds, p[4]);
  PRAGMA(omp simd)
  for (size r = 0; r < BLOCK; r++) {
    const pair of = f((sums){p[0][r], p[1][r], p[2][r], p[3][r], p[4][r]}, c[r], w[r]);
    u[r] = of.x, v[r] = of.y;
  }
  for (size r = 0; r < BLOCK; r++) result[r] = (pair){u[r], v[r]};
}

INLINE void number(const arguments *a, size first, int two, formula f) {
  pair result[BLOCK];
  evaluate(a, first, two, f, result);
  for (size r = 0; r < rows_in(a, first); r++) a->out[first + r] = (float)result[r].x;
}

INLINE void number_of_one(const arguments *a, size first, formula f) { number(a, first, 0, f); }
INLINE void number_of_two(const arguments *a, size first, formula f) { number(a, first, 1, f); }

/* k x */
INLINE void multiple(const arguments *a, size first, formula f) {
  pair k[BLOCK];
  evaluate(a, first, 0, f, k);
  for (size r = 0; r < rows_in(a, first); r++) {
    const float *x = a->x + (first + r) * a->d;
    float *out = a->out + (first + r) * a->d;
    PRAGMA(omp simd)
    for (size j = 0; j < a->d; j++) out[j] = (float)(k[r].x * x[j]);
  }
}

/* k.x x + k.y y */
INLINE void combination(const arguments *a, size first, formula f) {
  pair k[BLOCK];
  evaluate(a, first, 1, f, k);
  for (size r = 0; r < rows_in(a, first); r++) {
    const float *x = a->x + (first + r) * a->d, *y = a->y + (first + r) * a->d;
    float *out = a->out + (first + r) * a->d;
    PRAGMA(omp simd)
    for (size j = 0; j < a->d; j++) out[j] = (float)(k[r].x * x[j] + k[r].y * y[j]);
  }
}

/* the numbers of each row of x with each of y; c has one entry for all, or one a pair */
INLINE void number_of_pairs(const arguments *a, size first, formula f) {
  for (size i = first; i < first + rows_in(a, first); i++) {
    const float *x = a->x + i * a->d;
    for (size j = 0; j < a->m; j += BLOCK) {
      doubles xx[BLOCK], yy[BLOCK], dd[BLOCK], ds[BLOCK];
      double p[4][BLOCK], c[BLOCK], result[BLOCK];
      const size rows = a->m - j < BLOCK ? a->m - j : BLOCK;
      for (size r = 0; r < BLOCK; r++) {
        const size at = j + (r < rows ? r : rows - 1);
        const partial_sums p = sums_row(x, a->y + at * a->d, a->d);
        xx[r] = p.xx, yy[r] = p.yy, dd[r] = p.dd, ds[r] = p.ds;
        c[r] = a->c[(i * a->m + at) * a->c_step];
      }
      totals(xx, p[0]), totals(yy, p[1]), totals(dd, p[2]), totals(ds, p[3]);
      PRAGMA(omp simd)
      for (size r = 0; r < BLOCK; r++)
        result[r] = f((sums){p[0][r], p[1][r], 0, p[2][r], p[3][r]}, c[r], 0).x;
      for (size r = 0; r < rows; r++) a->out[i * a->m + j + r] = (float)result[r];
    }
  }
}

#define KERNEL(name, shape)                                                                   \
  void name(const arguments *a) {                                                             \
    PRAGMA(omp parallel for schedule(static) num_threads(a->threads) if (a->threads > 1))     \
    for (size first = 0; first < a->n; first += BLOCK) shape(a, first, name##_of);            \
  }

/* A kernel whose formula is one number; s = c |x|^2 */
#define SIMPLE(name, shape, expression)                                                       \
  INLINE pair name##_of(sums p, double c, double w) {                                         \
    const double s = c * p.xx;                                                                \
    (void)s, (void)w;                                                                         \
    return (pair){expression, 0};                                                             \
  }                                                                                           \
  KERNEL(name, shape)

SIMPLE(lorentz_time, number_of_one, sqrt(p.xx + 1 / c))
SIMPLE(lorentz_inner, number_of_two, -1 / c - chord(p, c) / 2)
SIMPLE(lorentz_distance, number_of_two, chord_to_distance(chord(p, c), c))
SIMPLE(lorentz_pairwise_distance, number_of_pairs, chord_to_distance(chord(p, c), c))
SIMPLE(lorentz_exp0, multiple, sinhc(s))
SIMPLE(lorentz_log0, multiple, asinhc(s))
SIMPLE(lorentz_to_poincare, multiple, 1 / (1 + sqrt(1 + s)))

INLINE pair lorentz_exp_of(sums p, double c, double w) {
  double gamma2 = 1 + c * p.xx;
  double s = c * larger(p.yy - c * p.xy * (p.xy / gamma2), p.yy / gamma2);
  return (pair){coshc(s), sinhc(s)};
}
KERNEL(lorentz_exp, combination)

INLINE pair lorentz_log_of(sums p, double c, double w) {
  double h = c * chord(p, c) / 4, k = asinhc(h) / sqrt(1 + h);
  return (pair){-k * (1 + 2 * h), k};
}
KERNEL(lorentz_log, combination)

INLINE pair lorentz_residual_of(sums p, double c, double w) {
  double k = 1 / sqrt((1 + w) * (1 + w) + w * c * chord(p, c));
  return (pair){k, k * w};
}
KERNEL(lorentz_residual, combination)

/* v + k (x + y), the only one of three vectors: its formula needs two sums more */
INLINE void transported(const arguments *a, size first, formula f) {
  pair k[BLOCK];
  evaluate(a, first, 1, f, k);
  for (size r = 0; r < rows_in(a, first); r++) {
    const size at = (first + r) * a->d;
    const float *x = a->x + at, *y = a->y + at, *v = a->z + at;
    const double yv = total(dot_row(y, v, a->d)), xv = total(dot_row(x, v, a->d));
    const double along = yv * k[r].x - xv * k[r].y;
    float *out = a->out + at;
    PRAGMA(omp simd)
    for (size j = 0; j < a->d; j++) out[j] = (float)(v[j] + along * ((double)x[j] + y[j]));
  }
}

INLINE pair lorentz_transport_of(sums p, double c, double w) {
  double k = c / (2 + c * chord(p, c) / 2);
  return (pair){k, k * sqrt((1 + c * p.yy) / (1 + c * p.xx))};
}
KERNEL(lorentz_transport, transported)

SIMPLE(poincare_distance, number_of_two, chord_to_distance(ball_chord(p, c), c))
SIMPLE(poincare_pairwise_distance, number_of_pairs, chord_to_distance(ball_chord(p, c), c))
SIMPLE(poincare_radius, number_of_one, 2 * sqrt(p.xx) * artanhc(s))
SIMPLE(poincare_conformal_factor, number_of_one, 2 / (1 - s))
SIMPLE(poincare_exp0, multiple, inside(tanhc(s), sech2(s)))
SIMPLE(poincare_log0, multiple, artanhc(s))
SIMPLE(poincare_to_lorentz, multiple, 2 / (1 - s))
SIMPLE(poincare_project, multiple, s < 1 ? 1 : (1 - MARGIN) / sqrt(s))

/* the factor that carries x, of tangent vector k x, into the ball */
INLINE double scaled(double k, double c, double xx) {
  double s = c * k * k * xx;
  return k * inside(tanhc(s), sech2(s));
}
SIMPLE(poincare_mobius_scalar, multiple, scaled(w * artanhc(s), c, p.xx))
SIMPLE(poincare_mobius_image, multiple, scaled(artanhc(c * w), c, p.xx)) /* x holds M x, w |x|^2 */

INLINE pair poincare_mobius_add_of(sums p, double c, double w) {
  return mobius_sum(1 - c * p.xx, 1 - c * p.yy, c * (p.xx + 2 * p.xy + p.yy), 1);
}
KERNEL(poincare_mobius_add, combination)

INLINE pair poincare_exp_of(sums p, double c, double w) {
  double delta = 1 - c * p.xx, s = c * p.yy / (delta * delta), k = tanhc(s) / delta;
  return mobius_sum(delta, sech2(s), c * (p.xx + 2 * k * p.xy + k * k * p.yy), k);
}
KERNEL(poincare_exp, combination)

INLINE pair poincare_log_of(sums p, double c, double w) {
  double delta = 1 - c * p.xx, product = delta * (1 - c * p.yy), h = c * p.dd / product;
  double k = delta * asinhc(h) / (sqrt(1 + h) * product);
  return (pair){-k * (delta + c * p.dd), k * delta};
}
KERNEL(poincare_log, combination)

/* The sums and the combinations alone, from which _rows.py builds what needs a gradient. */
#define EACH(i, n)                                                                            \
  PRAGMA(omp parallel for schedule(static) num_threads(threads) if (threads > 1))             \
  for (size i = 0; i < n; i++)

void dot(const float *x, const float *y, double *out, size n, size d, int threads) {
  EACH(i, n) out[i] = total(dot_row(x + i * d, y + i * d, d));
}

/* out[0..4][i, j]; m == 0 takes j = i only */
void dots(const float *x, const float *y, double *out, size n, size m, size d, int threads) {
  const size all = m ? n * m : n;
  EACH(p, all) {
    const partial_sums s = sums_row(x + (m ? p / m : p) * d, y + (m ? p % m : p) * d, d);
    out[p] = total(s.xx);
    out[all + p] = total(s.yy);
    out[2 * all + p] = total(s.xy);
    out[3 * all + p] = total(s.dd);
    out[4 * all + p] = total(s.ds);
  }
}

/* out_i = sum over t of coef[t][i] * x[t]_i, for one to three terms */
void combine(const double *coef, const float *x, const float *y, const float *z, float *out,
             size n, size d, int threads) {
  EACH(i, n) {
    const float *u = x + i * d, *v = y ? y + i * d : u, *t = z ? z + i * d : u;
    float *o = out + i * d;
    const double a = coef[i], b = y ? coef[n + i] : 0, e = z ? coef[2 * n + i] : 0;
    PRAGMA(omp simd)
    for (size j = 0; j < d; j++) o[j] = (float)(a * u[j] + b * v[j] + e * t[j]);
  }
}
