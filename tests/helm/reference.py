"""HELM straight from its formulas: float64, every point with its time in front, loops throughout.

A point is ``[t, x_1, ..., x_d]`` with ``<p, p>_L = -1/c``. Nothing here is arranged for speed or
against cancellation, and nothing of geodapt is used but the names of a model's weights.
"""

import math

import torch

from geodapt.helm import HelmConfig

Point = torch.Tensor


def inner(p: Point, q: Point) -> torch.Tensor:
    return (p[1:] * q[1:]).sum() - p[0] * q[0]


def lift(x: torch.Tensor, c: float) -> Point:
    return torch.cat([torch.sqrt(x @ x + 1 / c).view(1), x])


def on_manifold(p: Point, c: float) -> bool:
    return bool(p[0] > 0) and abs(float(inner(p, p)) + 1 / c) < 1e-8 * float(p @ p + 1 / c)


def linear(p: Point, weight, time_weight, bias, c: float) -> Point:
    y = weight @ p[1:] + time_weight * p[0]
    return lift(y if bias is None else y + bias, c)


def rescale(p: Point, c_from: float, c_to: float) -> Point:
    return math.sqrt(c_from / c_to) * p


def rms_norm(p: Point, weight, eps: float, c: float) -> Point:
    x = p[1:]
    return lift(x / torch.sqrt((x * x).mean() + eps) * weight, c)


def rotation(position: int, pairs: int, theta: float) -> torch.Tensor:
    """``R_i`` as a matrix: the pair (j, j + pairs) turns by ``i theta^(-j / pairs)``."""
    matrix = torch.zeros(2 * pairs, 2 * pairs, dtype=torch.float64)
    for j in range(pairs):
        angle = position * theta ** (-j / pairs)
        matrix[j, j] = matrix[j + pairs, j + pairs] = math.cos(angle)
        matrix[j, j + pairs] = -math.sin(angle)
        matrix[j + pairs, j] = math.sin(angle)
    return matrix


def hope(p: Point, position: int, pairs: int, theta: float, c: float) -> Point:
    """Rotate the first ``2 pairs`` space components."""
    x = p[1:].clone()
    x[: 2 * pairs] = rotation(position, pairs, theta) @ x[: 2 * pairs]
    return lift(x, c)


def centroid(points: list[Point], weights: list, c: float) -> Point:
    s = sum(w * p for w, p in zip(weights, points, strict=True))
    return s / torch.sqrt(-c * inner(s, s))


def residual(p: Point, q: Point, weight: float, scale: float, c: float) -> Point:
    return lift(scale * centroid([p, q], [1.0, weight], c)[1:], c)


def concat(points: list[Point], c: float) -> Point:
    """Lorentz concatenation: ``t^2 = sum t_i^2 - (n - 1) / c``."""
    t = torch.sqrt(sum(p[0] ** 2 for p in points) - (len(points) - 1) / c)
    return torch.cat([t.view(1), *(p[1:] for p in points)])


def silu(x: torch.Tensor) -> torch.Tensor:
    return x / (1 + torch.exp(-x))


def attention(queries, keys, values, tau: float, c: float, bias=None) -> list[Point]:
    """Causal attention of one head: a centroid of the values for every query."""
    out = []
    for i, q in enumerate(queries):
        scores = [(2 / c + 2 * inner(q, keys[j])) / tau for j in range(i + 1)]
        if bias is not None:
            scores = [score + bias(i - j) for j, score in enumerate(scores)]
        top = max(scores)
        exps = [torch.exp(score - top) for score in scores]
        out.append(centroid(values[: i + 1], [e / sum(exps) for e in exps], c))
    return out


class Reference:
    """A whole model, from the weights of a :class:`HelmForCausalLM` in float64."""

    def __init__(self, model) -> None:
        self.config: HelmConfig = model.config
        self.w = {name: t.detach().double() for name, t in model.state_dict().items()}
        offset = self.w.get("model.curvature.offset", torch.zeros(1))
        self.c = self.config.curvature * math.exp(float(offset))

    def linear(self, name: str, p: Point, c: float | None = None) -> Point:
        bias = self.w.get(f"{name}.bias")
        weight, time = self.w[f"{name}.weight"], self.w[f"{name}.time_weight"]
        return linear(p, weight, time, bias, c or self.c)

    def norm(self, name: str, p: Point) -> Point:
        return rms_norm(p, self.w[f"{name}.weight"], self.config.rms_norm_eps, self.c)

    def logits(self, ids: list[int]) -> torch.Tensor:
        x = [lift(self.w["model.embed_tokens.weight"][i], self.c) for i in ids]
        for layer in range(self.config.num_hidden_layers):
            x = self.block(f"model.layers.{layer}", layer, x)
        if self.config.final_projection:
            x = [self.linear("model.final_proj", p) for p in x]
        x = [self.norm("model.norm", p) for p in x]
        if self.config.head_reads_time:
            x = [torch.cat([p, p[:1]]) for p in x]  # the time last, where its weights are
        return torch.stack([self.w["lm_head.weight"] @ p[1:] for p in x])

    def block(self, name: str, layer: int, x: list[Point]) -> list[Point]:
        h = [self.norm(f"{name}.input_layernorm", p) for p in x]
        attend = self.latent_attention if self.config.attention == "mla" else self.attention
        y = attend(f"{name}.self_attn", h)
        x = [self.residual(f"{name}.attention_residual", p, q) for p, q in zip(x, y, strict=True)]
        h = [self.norm(f"{name}.post_attention_layernorm", p) for p in x]
        routed = self.config.n_routed_experts and layer >= self.config.first_k_dense_replace
        y = [(self.mixture if routed else self.mlp)(f"{name}.mlp", p) for p in h]
        return [self.residual(f"{name}.mlp_residual", p, q) for p, q in zip(x, y, strict=True)]

    def residual(self, name: str, p: Point, q: Point) -> Point:
        weight = math.exp(self.w[f"{name}.weight.offset"])
        start = 2.0 if name.endswith("join") else self.config.residual_scale
        return residual(p, q, weight, start * math.exp(self.w[f"{name}.scale.offset"]), self.c)

    def output(self, name: str, by_head: list[list[Point]]) -> list[Point]:
        """The output projection of each token's points, one of every head."""
        tokens = list(zip(*by_head, strict=True))
        if not self.config.output_reads_head_times:
            return [self.linear(name, concat(list(points), self.c)) for points in tokens]
        space = [torch.cat([p[1:] for p in points]) for points in tokens]
        times = [torch.stack([p[0] for p in points]) for points in tokens]
        bias = self.w.get(f"{name}.bias", torch.zeros(1))
        weight, of_times = self.w[f"{name}.weight"], self.w[f"{name}.time_weight"]
        out = zip(space, times, strict=True)
        return [lift(weight @ x + of_times @ t + bias, self.c) for x, t in out]

    def place(self, p: Point, position: int, pairs: int) -> Point:
        if self.config.position != "hope":
            return p
        return hope(p, position, pairs, self.config.rope_parameters["rope_theta"], self.c)

    def bias(self, head: int):
        if self.config.position != "relative":
            return None
        return lambda distance: self.w["model.relative_bias.weight"][self.bucket(distance), head]

    def bucket(self, distance: int) -> int:
        exact = self.config.relative_attention_num_buckets // 2
        if distance < exact:
            return distance
        far = math.log(self.config.relative_attention_max_distance / exact)
        steps = math.log(distance / exact) / far * (2 * exact - exact)
        return min(exact + int(steps), 2 * exact - 1)

    def attention(self, name: str, x: list[Point]) -> list[Point]:
        config, c = self.config, self.c
        heads, groups, space = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim - 1,
        )
        tau = math.sqrt(heads * config.head_dim) * math.exp(self.w[f"{name}.temperature.offset"])
        q, k, v = (
            [self.linear(f"{name}.{p}_proj", point)[1:].view(-1, space) for point in x]
            for p in ("q", "k", "v")
        )
        pairs, by_head = space // 2, []
        for head in range(heads):
            group = head // (heads // groups)
            queries = [self.place(lift(y[head], c), i, pairs) for i, y in enumerate(q)]
            keys = [self.place(lift(y[group], c), i, pairs) for i, y in enumerate(k)]
            values = [lift(y[group], c) for y in v]
            by_head.append(attention(queries, keys, values, tau, c, self.bias(head)))
        return self.output(f"{name}.o_proj", by_head)

    def latent_attention(self, name: str, x: list[Point]) -> list[Point]:
        config, c = self.config, self.c
        heads, rope = config.num_attention_heads, config.qk_rope_head_dim
        nope, value = config.qk_nope_head_dim - 1, config.v_head_dim - 1
        size = config.qk_nope_head_dim + rope
        tau = math.sqrt(heads * size) * math.exp(self.w[f"{name}.temperature.offset"])
        up, up_bias = self.w[f"{name}.kv_b_proj.weight"], self.w.get(f"{name}.kv_b_proj.bias")
        by_head: list[tuple[list, list, list]] = [([], [], []) for _ in range(heads)]
        for i, point in enumerate(x):
            if config.q_lora_rank is None:
                q = self.linear(f"{name}.q_proj", point)[1:].view(heads, -1)
            else:
                latent = self.norm(f"{name}.q_a_layernorm", self.linear(f"{name}.q_a_proj", point))
                q = self.linear(f"{name}.q_b_proj", latent)[1:].view(heads, -1)
            down = self.linear(f"{name}.kv_a_proj_with_mqa", point)[1:]
            latent = self.norm(f"{name}.kv_a_layernorm", lift(down[:-rope], c))
            shared = self.place(lift(down[-rope:], c), i, rope // 2)
            # The plain matrix reads whole points with the time last.
            kv = up @ torch.cat([latent[1:], latent[:1]])
            kv = (kv if up_bias is None else kv + up_bias).view(heads, -1)
            for head, (queries, keys, values) in enumerate(by_head):
                turned = self.place(lift(q[head, :rope], c), i, rope // 2)
                queries.append(concat([turned, lift(q[head, rope:], c)], c))
                keys.append(concat([shared, lift(kv[head, :nope], c)], c))
                values.append(lift(kv[head, nope : nope + value], c))
        out = [
            attention(queries, keys, values, tau, c, self.bias(head))
            for head, (queries, keys, values) in enumerate(by_head)
        ]
        return self.output(f"{name}.o_proj", out)

    def mlp(self, name: str, p: Point, c: float | None = None) -> Point:
        c = c or self.c
        gate = self.linear(f"{name}.gate_proj", p, c)[1:]
        up = self.linear(f"{name}.up_proj", p, c)[1:]
        return self.linear(f"{name}.down_proj", lift(silu(gate) * up, c), c)

    def mixture(self, name: str, p: Point) -> Point:
        config, c = self.config, self.c
        c_i = [
            start * math.exp(offset)
            for start, offset in zip(
                config.curvature_of_experts(), self.w[f"{name}.curvature_offset"], strict=True
            )
        ]
        if not config.shared_experts_curved:
            c_i = [c] * config.n_shared_experts + c_i
        points, weights = [], []
        for i in range(config.n_shared_experts):
            inside = self.mlp(f"{name}.shared_experts.{i}", rescale(p, c, c_i[i]), c_i[i])
            points.append(rescale(inside, c_i[i], c))
            weights.append(1.0)
        for i, weight in self.route(name, p):
            geometry = config.geometry_of_experts()[config.n_shared_experts + i]
            points.append(self.expert(name, i, p, c_i[config.n_shared_experts + i], geometry))
            weights.append(weight)
        if config.expert_sum == "nested":
            return self.nested(name, points[0], points[1:], weights[1:])
        return centroid(points, weights, c)

    def nested(self, name: str, shared: Point, routed: list[Point], weights: list) -> Point:
        joined = lift(torch.zeros_like(shared[1:]), self.c)
        for point, weight in zip(routed, weights, strict=True):
            joined = residual(joined, point, weight, 2.0, self.c)
        return self.residual(f"{name}.join", shared, joined)

    def route(self, name: str, p: Point) -> list[tuple[int, float]]:
        config = self.config
        logits = self.w[f"{name}.gate.weight"] @ p[1:]
        if config.scoring_func == "softmax":
            scores = torch.exp(logits) / torch.exp(logits).sum()
        else:
            scores = 1 / (1 + torch.exp(-logits))
        biased = (scores + self.w[f"{name}.gate.e_score_correction_bias"]).tolist()
        size = config.n_routed_experts // config.n_group
        groups = [list(range(g * size, (g + 1) * size)) for g in range(config.n_group)]
        groups.sort(key=lambda group: -sum(sorted((biased[i] for i in group), reverse=True)[:2]))
        open_to = [i for group in groups[: config.topk_group] for i in group]
        chosen = sorted(open_to, key=lambda i: -biased[i])[: config.num_experts_per_tok]
        total = sum(scores[i] for i in chosen) if config.norm_topk_prob else 1.0
        return [(i, scores[i] / total * config.routed_scaling_factor) for i in sorted(chosen)]

    def expert(self, name: str, i: int, p: Point, c_i: float, geometry: str) -> Point:
        gate_up, down = (self.w[f"{name}.experts.{n}_proj"][i] for n in ("gate_up", "down"))
        gate_up_time, down_time = (
            self.w[f"{name}.experts.{n}_time"][i] for n in ("gate_up", "down")
        )
        none = torch.zeros(self.config.n_routed_experts, 1)
        up_bias, down_bias = (
            self.w.get(f"{name}.experts.{n}_bias", none)[i] for n in ("gate_up", "down")
        )
        scale = 1.0 if geometry == "euclidean" else math.sqrt(self.c / c_i)

        def inside(u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            """Time and space of the point of the expert's space that u stands for."""
            if geometry == "euclidean":
                return torch.ones(()), u
            if geometry == "spherical":
                radius = 1 / math.sqrt(c_i)
                point = torch.cat([torch.tensor([radius], dtype=u.dtype), u])
                point = point / point.norm() * radius
                return point[0], point[1:]
            point = lift(u, c_i)
            return point[0], point[1:]

        t, s = inside(scale * p[1:])
        gate, up = (gate_up @ s + gate_up_time * t + up_bias).chunk(2)
        t, s = inside(silu(gate) * up)
        return lift((down @ s + down_time * t + down_bias) / scale, self.c)
