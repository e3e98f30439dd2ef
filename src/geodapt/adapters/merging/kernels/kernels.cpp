/* Merging updates of which only some entries stay, in one pass: the updates `B A` are formed in a
   core's registers, a few rows and columns at a time, and only what they are merged into is written.

   An entry stays where a random bit says so, or where it is large. How large is known in advance
   but for a narrow bracket, since it depends on all entries: where an entry of any update falls into
   the bracket, all updates' entries there are written down, to be merged when the limit is known. */
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))

namespace {

typedef std::ptrdiff_t size;

#ifdef __AVX512F__
constexpr size LANES = 16, VECTORS = 4;
#else
constexpr size LANES = 8, VECTORS = 2;
#endif
constexpr size TALL = 5; /* TALL x VECTORS sums fit into the registers */
constexpr size WIDE = VECTORS * LANES;
constexpr size PANEL = 64; /* columns of A that lie together; the last panel's end is zero */

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef std::int32_t ints __attribute__((vector_size(4 * LANES)));

} // namespace

struct arguments {
  const float *A;               /* panels x R x PANEL: all updates' A, one below the other */
  const float *B;               /* rows x R: all updates' B, side by side */
  const std::int64_t *ranks;    /* how many of the R are each update's */
  const float *weights;         /* one an update */
  const float *low, *high;      /* each update's bracket: above low, not above high */
  const std::uint64_t *bits;    /* updates x rows x panels: which entries stay */
  float *merged;                /* rows x width */
  std::int32_t *where;          /* room: places, counted along the rows, that are open */
  float *open;                  /* updates x room: the entries there */
  std::int64_t *above;          /* for each update, adds the number of entries above the bracket */
  std::int64_t updates, R, rows, width, room;
};

namespace {

INLINE floats load(const float *from) {
  floats v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

INLINE void store(float *to, floats v) { std::memcpy(to, &v, sizeof v); }

INLINE ints numbered() {
  ints v;
  for (size l = 0; l < LANES; l++) v[l] = l;
  return v;
}

#ifdef __AVX512F__ /* gcc 12 would carry masks in vectors */
typedef __mmask16 mask;
INLINE mask above(floats x, float y) {
  return _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(y), _CMP_GT_OQ);
}
INLINE mask first_lanes(size n) { return n < LANES ? (1u << (n < 0 ? 0 : n)) - 1 : 0xffff; }
INLINE mask from_bits(std::uint64_t bits) { return (mask)bits; }
INLINE size count(mask m) { return __builtin_popcount(m); }
INLINE floats pick(mask m, floats x) { return (floats)_mm512_maskz_mov_ps(m, (__m512)x); }
INLINE void add(mask m, ints &to, std::int32_t n) {
  to = (ints)_mm512_mask_add_epi32((__m512i)to, m, (__m512i)to, _mm512_set1_epi32(n));
}
INLINE void compress(void *to, ints x, mask m) {
  _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(m, (__m512i)x));
}
#else
typedef ints mask; /* 0 or -1 */
INLINE mask above(floats x, float y) { return x > y; }
INLINE mask first_lanes(size n) { return numbered() < (std::int32_t)n; }
INLINE mask from_bits(std::uint64_t bits) {
  return -(((ints{} + (std::int32_t)(bits & 0xff)) >> numbered()) & 1);
}
INLINE floats pick(mask m, floats x) { return (floats)(m & (ints)x); }
INLINE void add(mask m, ints &to, std::int32_t n) { to += m & n; }
INLINE size count(mask m) {
  size n = 0;
  for (size l = 0; l < LANES; l++) n -= m[l];
  return n;
}
INLINE void compress(void *to, ints x, mask m) {
  for (size l = 0, at = 0; l < LANES; l++) {
    std::memcpy((char *)to + 4 * at, (char *)&x + 4 * l, 4);
    at -= m[l];
  }
}
#endif

/* TALL rows by WIDE columns of an update; k counts the rows of the panel */
INLINE void product(const float *const *B, const float *A, size first, size last, float *out,
                    size stride) {
  floats sum[TALL][VECTORS] = {};
  for (size k = first; k < last; k++) {
    floats a[VECTORS];
    for (size v = 0; v < VECTORS; v++) a[v] = load(A + k * PANEL + v * LANES);
    for (size i = 0; i < TALL; i++)
      for (size v = 0; v < VECTORS; v++) sum[i][v] += B[i][k] * a[v];
  }
  for (size i = 0; i < TALL; i++)
    for (size v = 0; v < VECTORS; v++) store(out + i * stride + v * LANES, sum[i][v]);
}

/* Of what stays (kept, zero for the rest) and its sum, the average of those with the sum's sign */
INLINE void agree(const floats *kept, const float *weights, size updates, floats *sum) {
  ints sign[VECTORS];
  floats number[VECTORS] = {};
  for (size v = 0; v < VECTORS; v++) sign[v] = (sum[v] < 0.f) & INT32_MIN, sum[v] = floats{};
  for (size u = 0; u < updates; u++)
    for (size v = 0; v < VECTORS; v++) {
      const floats x = (floats)((ints)kept[u * VECTORS + v] ^ sign[v]);
      const mask agrees = above(x, 0.f);
      sum[v] += weights[u] * pick(agrees, x);
      number[v] += pick(agrees, floats{} + 1.f);
    }
  for (size v = 0; v < VECTORS; v++) {
    const floats one = number[v] + pick(above(1.f - number[v], 0.f), floats{} + 1.f);
    sum[v] = (floats)((ints)sum[v] ^ sign[v]) / one; /* of none the sum is zero, too */
  }
}

template <bool LARGEST, bool AGREEING> std::int64_t merge(const arguments *a) {
  const size updates = a->updates, R = a->R, width = a->width, room = a->room;
  const size panels = (width + PANEL - 1) / PANEL;
  const float *const low = a->low, *const high = a->high, *const weights = a->weights;
  std::vector<float> deltas(TALL * updates * WIDE);
  std::vector<floats> kept(AGREEING ? updates * VECTORS : 0);
  std::vector<ints> larger(updates);
  const ints lanes = numbered();
  size found = 0;

  for (size column = 0; column < width; column += WIDE) {
    const size panel = column / PANEL, columns = width - column < WIDE ? width - column : WIDE;
    const float *A = a->A + panel * R * PANEL + column % PANEL;
    for (size row = 0; row < a->rows; row += TALL) {
      const size rows = a->rows - row < TALL ? a->rows - row : TALL;
      const float *B[TALL]; /* beyond the last row, the last one again */
      for (size i = 0; i < TALL; i++) B[i] = a->B + (row + (i < rows ? i : rows - 1)) * R;
      for (size u = 0, first = 0; u < updates; first += a->ranks[u++])
        product(B, A, first, first + a->ranks[u], &deltas[u * WIDE], updates * WIDE);

      for (size i = 0; i < rows; i++) {
        const float *delta = &deltas[i * updates * WIDE];
        floats sum[VECTORS] = {}; /* of what stays; before signs are elected, their votes */
        mask open[VECTORS] = {};
        for (size u = 0; u < updates; u++) {
          ints more{};
          [[maybe_unused]] std::uint64_t bits;
          if constexpr (!LARGEST)
            bits = a->bits[(u * a->rows + row + i) * panels + panel] >> column % PANEL;
          for (size v = 0; v < VECTORS; v++) {
            const floats x = load(delta + u * WIDE + v * LANES);
            mask stays;
            if constexpr (LARGEST) {
              const floats magnitude = (floats)((ints)x & INT32_MAX);
              stays = above(magnitude, high[u]);
              open[v] |= above(magnitude, low[u]) ^ stays;
              add(stays, more, 1);
            } else {
              stays = from_bits(bits >> v * LANES);
            }
            if constexpr (AGREEING) sum[v] += kept[u * VECTORS + v] = pick(stays, x);
            else sum[v] += weights[u] * pick(stays, x);
          }
          if constexpr (LARGEST) larger[u] += more;
        }
        if constexpr (AGREEING) agree(kept.data(), weights, updates, sum);

        const size at = (row + i) * width + column;
        if (columns == WIDE)
          for (size v = 0; v < VECTORS; v++) store(a->merged + at + v * LANES, sum[v]);
        else
          std::memcpy(a->merged + at, sum, 4 * columns);
        if constexpr (LARGEST)
          for (size v = 0; v < VECTORS; v++) {
            const size first = v * LANES;
            const mask here = open[v] & first_lanes(columns - first);
            compress(a->where + found, lanes + (std::int32_t)(at + first), here);
            for (size u = 0; u < updates; u++)
              compress(a->open + u * room + found, (ints)load(delta + u * WIDE + first), here);
            found += count(here);
          }
      }
    }
  }
  if constexpr (LARGEST)
    for (size u = 0; u < updates; u++)
      for (size l = 0; l < LANES; l++) a->above[u] += larger[u][l];
  return found;
}

} // namespace

extern "C" {
std::int64_t largest_weighted_sum(const arguments *a) { return merge<true, false>(a); }
std::int64_t largest_merge_agreeing(const arguments *a) { return merge<true, true>(a); }
std::int64_t chosen_weighted_sum(const arguments *a) { return merge<false, false>(a); }
std::int64_t chosen_merge_agreeing(const arguments *a) { return merge<false, true>(a); }
}
