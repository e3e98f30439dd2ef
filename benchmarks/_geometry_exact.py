"""The textbook formulas at 60 digits, on full hyperboloid coordinates: slow and obvious.

Vectors are lists of mpmath numbers. Nothing here is arranged to avoid cancellation; 60 digits
make that unnecessary.
"""

from mpmath import acos, acosh, asin, atanh, cosh, matrix, mp, mpf, pi, sinh, sqrt, tanh

mp.dps = 60


def numbers(row):
    return [mpf(float(a)) for a in row]


def dot(a, b):
    return sum((p * q for p, q in zip(a, b, strict=True)), mpf(0))


def norm(a):
    return sqrt(dot(a, a))


def add(*terms):
    """Sum of (coefficient, vector) terms."""
    return [sum((k * v[i] for k, v in terms), mpf(0)) for i in range(len(terms[0][1]))]


# hyperboloid: a point is [t, x_1, ..., x_d]


def lift(x, c):
    return [sqrt(dot(x, x) + 1 / c), *x]


def lift_tangent(x, v, c):
    return [dot(x, v) / sqrt(dot(x, x) + 1 / c), *v]


def minkowski(a, b):
    return dot(a[1:], b[1:]) - a[0] * b[0]


def time(x, c):
    return lift(x, c)[0]


def lorentz_inner(x, y, c):
    return minkowski(lift(x, c), lift(y, c))


def lorentz_distance(x, y, c):
    return acosh(-c * lorentz_inner(x, y, c)) / sqrt(c)


def lorentz_exp(x, v, c):
    p, w = lift(x, c), lift_tangent(x, v, c)
    n = sqrt(c * minkowski(w, w))
    return add((cosh(n), p), (sinh(n) / n if n else mpf(1), w))[1:]


def lorentz_exp0(v, c):
    return lorentz_exp([mpf(0)] * len(v), v, c)


def lorentz_log(x, y, c):
    p, r = lift(x, c), lift(y, c)
    a = -c * minkowski(p, r)
    k = acosh(a) / sqrt(a * a - 1) if a > 1 else mpf(1)
    return add((k, r), (-k * a, p))[1:]


def lorentz_log0(x, c):
    return lorentz_log([mpf(0)] * len(x), x, c)


def lorentz_transport(x, y, v, c):
    p, r, w = lift(x, c), lift(y, c), lift_tangent(x, v, c)
    k = c * minkowski(r, w) / (1 - c * minkowski(p, r))
    return add((mpf(1), w), (k, p), (k, r))[1:]


def lorentz_centroid(points, weights, c):
    s = add(*((w, lift(p, c)) for w, p in zip(weights, points, strict=True)))
    return add((1 / sqrt(-c * minkowski(s, s)), s))[1:]


def lorentz_residual(x, y, w, c):
    return lorentz_centroid([x, y], [mpf(1), w], c)


def rescale(x, c_from, c_to):
    return add((sqrt(c_from / c_to), x))


def to_poincare(x, c):
    return add((1 / (1 + sqrt(c) * time(x, c)), x))


def rms_norm(x, eps):
    return add((1 / sqrt(dot(x, x) / len(x) + eps), x))


# ball


def mobius_add(x, y, c):
    xx, yy, xy = dot(x, x), dot(y, y), dot(x, y)
    k = 1 + 2 * c * xy + c * c * xx * yy
    return add(((1 + 2 * c * xy + c * yy) / k, x), ((1 - c * xx) / k, y))


def conformal_factor(x, c):
    return 2 / (1 - c * dot(x, x))


def poincare_distance(x, y, c):
    m = mobius_add(add((mpf(-1), x)), y, c)
    return 2 / sqrt(c) * atanh(sqrt(c) * norm(m))


def radius(x, c):
    return 2 / sqrt(c) * atanh(sqrt(c) * norm(x))


def poincare_exp0(v, c):
    n = sqrt(c) * norm(v)
    return add((tanh(n) / n if n else mpf(1), v))


def poincare_log0(x, c):
    n = sqrt(c) * norm(x)
    return add((atanh(n) / n if n else mpf(1), x))


def poincare_exp(x, v, c):
    return mobius_add(x, poincare_exp0(add((conformal_factor(x, c) / 2, v)), c), c)


def poincare_log(x, y, c):
    m = mobius_add(add((mpf(-1), x)), y, c)
    return add((2 / conformal_factor(x, c), poincare_log0(m, c)))


def mobius_matvec(m, x, c):
    u = poincare_log0(x, c)
    return poincare_exp0(list(matrix(m) * matrix(u)), c)


def mobius_scalar(r, x, c):
    return poincare_exp0(add((r, poincare_log0(x, c))), c)


def to_lorentz(x, c):
    return add((conformal_factor(x, c), x))


# cones


def angle(u, v):
    return acos(dot(u, v) / (norm(u) * norm(v)))


def exterior_angle(apex, x, root):
    return pi - angle(add((mpf(1), root), (mpf(-1), apex)), add((mpf(1), x), (mpf(-1), apex)))


def lorentz_exterior_angle(apex, x, c):
    """MERU, eq. 5."""
    inner = c * lorentz_inner(apex, x, c)
    return acos((time(x, c) + time(apex, c) * inner) / (norm(apex) * sqrt(inner * inner - 1)))


def poincare_exterior_angle(apex, x, c):
    """Ganea et al. 2018, eq. 28, written for curvature -1 and scaled."""
    a, b = add((sqrt(c), apex)), add((sqrt(c), x))
    ab, aa, bb = dot(a, b), dot(a, a), dot(b, b)
    gap = norm(add((mpf(1), a), (mpf(-1), b)))
    below = norm(a) * gap * sqrt(1 + aa * bb - 2 * ab)
    return acos((ab * (1 + aa) - aa * (1 + bb)) / below)


def half_aperture(apex, root, eps):
    return asin(eps / norm(add((mpf(1), apex), (mpf(-1), root))))


def lorentz_half_aperture(apex, c, eps):
    return asin(2 * eps / (sqrt(c) * norm(apex)))


def poincare_half_aperture(apex, c, eps):
    return asin(eps * (1 - c * dot(apex, apex)) / (sqrt(c) * norm(apex)))
