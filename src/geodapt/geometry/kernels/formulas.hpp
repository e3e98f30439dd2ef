/* What the formulas of lorentz.py and poincare.py share; they are explained there. Each is written
   once, for any number type: numbers give the values, dual numbers also the slopes. */
#pragma once
#include "numbers.hpp"

namespace {

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

} // namespace
