/* Whole functions of float32 rows on the CPU, and their gradients: one pass over memory, every sum
   in double, or in float32 where the formula shows that this is enough.

   PyTorch's eager operators would write each float32 input out as float64 first. These loops
   convert in registers, so that double precision costs no memory traffic. The formulas are those
   of lorentz.py and poincare.py, where they are explained; the tests hold the two equal.

   Rows are contiguous and the batch is flattened. As many rows as a register has lanes are taken
   together: the sums of each, the formula for all of them at once, then the results. A formula is
   written once, for any number type: numbers give the values, dual numbers also the slopes. A quick
   formula beside it gives values alone, from float32 sums, and says where they suffice. */
#include "passes.hpp"

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
