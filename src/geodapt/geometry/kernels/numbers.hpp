/* Numbers, as many at once as a register has lanes, and numbers that carry their slopes along. */
#pragma once
#include <cmath>
#include <cstddef>
#include <cstring>
#include <utility>
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

} // namespace
