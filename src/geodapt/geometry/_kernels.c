/* Row reductions and row combinations of float32 vectors, carried in double.

   PyTorch's eager operators would write every float32 input out as float64 first; these loops
   convert in registers, so that double precision costs no more memory traffic than single.
   Rows are contiguous; the batch is flattened. */
#include <stddef.h>

#define PARALLEL _Pragma("omp parallel for schedule(static) if (work > 65536)")

/* out[i] = x_i . y_i */
void dot(const float *x, const float *y, double *out, ptrdiff_t n, ptrdiff_t d) {
  ptrdiff_t work = n * d;
  PARALLEL
  for (ptrdiff_t i = 0; i < n; i++) {
    const float *a = x + i * d, *b = y + i * d;
    double sum = 0;
    _Pragma("omp simd reduction(+ : sum)")
    for (ptrdiff_t k = 0; k < d; k++) sum += (double)a[k] * b[k];
    out[i] = sum;
  }
}

/* out[0..4][i, j] = |x_i|^2, |y_j|^2, x_i.y_j, |x_i - y_j|^2, (x_i - y_j).(x_i + y_j);
   pairs == 0 takes j = i only. */
void dots(const float *x, const float *y, double *out, ptrdiff_t n, ptrdiff_t m, ptrdiff_t d,
          int pairs) {
  ptrdiff_t total = pairs ? n * m : n, work = total * d;
  PARALLEL
  for (ptrdiff_t p = 0; p < total; p++) {
    const float *a = x + (pairs ? p / m : p) * d, *b = y + (pairs ? p % m : p) * d;
    double xx = 0, yy = 0, xy = 0, dd = 0, ds = 0;
    _Pragma("omp simd reduction(+ : xx, yy, xy, dd, ds)")
    for (ptrdiff_t k = 0; k < d; k++) {
      double u = a[k], v = b[k], w = u - v;
      xx += u * u;
      yy += v * v;
      xy += u * v;
      dd += w * w;
      ds += w * (u + v);
    }
    out[p] = xx;
    out[total + p] = yy;
    out[2 * total + p] = xy;
    out[3 * total + p] = dd;
    out[4 * total + p] = ds;
  }
}

/* out_i = sum over t of coef[t][i] * x[t]_i, for one to three terms */
void combine(const double *coef, const float *x, const float *y, const float *z, float *out,
             ptrdiff_t n, ptrdiff_t d) {
  ptrdiff_t work = n * d;
  PARALLEL
  for (ptrdiff_t i = 0; i < n; i++) {
    const float *u = x + i * d, *v = y ? y + i * d : 0, *w = z ? z + i * d : 0;
    float *o = out + i * d;
    double a = coef[i], b = y ? coef[n + i] : 0, c = z ? coef[2 * n + i] : 0;
    if (z)
      _Pragma("omp simd")
      for (ptrdiff_t k = 0; k < d; k++) o[k] = (float)(a * u[k] + b * v[k] + c * w[k]);
    else if (y)
      _Pragma("omp simd")
      for (ptrdiff_t k = 0; k < d; k++) o[k] = (float)(a * u[k] + b * v[k]);
    else
      _Pragma("omp simd")
      for (ptrdiff_t k = 0; k < d; k++) o[k] = (float)(a * u[k]);
  }
}
