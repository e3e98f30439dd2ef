"""The paper's released models straight from their definitions: float64, loops, points ``[t, x]``.

Weights have the names that the official state_dict has; ``k = 1/c`` as there. Nothing of geodapt is
used. :func:`dense` and :func:`mixture` draw weights for small models, with every scalar away from
its start.
"""

import math

import torch

State = dict[str, torch.Tensor]
WIDTH, VOCABULARY, LAYERS, HEADS = 21, 30, 2, 3
SIZE = 7  # of a head, its time counted
LATENT, NOPE, ROPE, VALUE = 6, 5, 4, 4  # space components; VALUE with the time
EXPERTS = 4


class Draw:
    def __init__(self) -> None:
        self.generator, self.state = torch.Generator().manual_seed(3), {}

    def normal(self, name: str, *shape: int, std: float = 0.4, mean: float = 0.0) -> None:
        drawn = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        self.state[name] = mean + std * drawn

    def linear(self, name: str, into: int, out: int) -> None:
        self.normal(f"{name}.weight", out, into)
        self.normal(f"{name}.bias", out)

    def scalar(self, name: str, mean: float, *shape: int) -> None:
        self.normal(name, *shape, std=0.1, mean=mean)

    def points(self, name: str) -> None:
        self.normal(name, VOCABULARY, WIDTH)
        rows = self.state[name]
        rows[:, 0] = torch.sqrt((rows[:, 1:] ** 2).sum(1) + 1)

    def feed_forward(self, name: str, inner: int) -> None:
        self.linear(f"{name}.w1.linear", WIDTH, inner - 1)
        self.linear(f"{name}.w3.linear", WIDTH, inner - 1)
        self.linear(f"{name}.w2.linear", inner, WIDTH - 1)

    def ends(self, norm: str, head: str) -> None:
        self.linear("final_proj.linear", WIDTH, WIDTH - 1)
        self.normal(f"{norm}.weight", WIDTH - 1, mean=1.0)
        self.normal(f"{head}.weight", VOCABULARY, WIDTH)
        self.state["attn_mask"] = torch.ones(16, 16).triu(1).bool()
        for name in ("manifold_hidden.k", "manifold_hidden.c", "final_proj.manifold.k"):
            self.state[name] = torch.tensor(1.0, dtype=torch.float64)


def dense() -> State:
    draw = Draw()
    draw.points("token_embed.embedding")
    for i in range(LAYERS):
        at = f"resblocks.{i}"
        for part in "qkv":
            draw.linear(f"{at}.attn.W{part}", WIDTH, HEADS * (SIZE - 1))
        draw.linear(f"{at}.attn.final_linear", HEADS * SIZE, WIDTH - 1)
        draw.scalar(f"{at}.attn.scale", math.sqrt(HEADS * SIZE), 1)
        draw.scalar(f"{at}.attn.bias", 0.5)
        draw.feed_forward(f"{at}.mlp", 12)
        for n in (1, 2):
            draw.normal(f"{at}.ln_{n}.weight", WIDTH - 1, mean=1.0)
            draw.scalar(f"{at}.res{n}.w_y", 1.0)
    draw.ends("ln_final", "mapping")
    return draw.state


def mixture() -> State:
    draw = Draw()
    draw.points("embed.embedding")
    for i in range(LAYERS):
        at = f"layers.{i}"
        draw.linear(f"{at}.attn.wq.linear", WIDTH, HEADS * (NOPE + ROPE))
        draw.linear(f"{at}.attn.wkv_a.linear", WIDTH, LATENT + ROPE)
        draw.normal(f"{at}.attn.kv_norm.weight", LATENT, mean=1.0)
        draw.linear(f"{at}.attn.wkv_b.linear", LATENT + 1, HEADS * (NOPE + VALUE - 1))
        draw.linear(f"{at}.attn.wo.linear", HEADS * VALUE, WIDTH - 1)
        draw.scalar(f"{at}.attn.softmax_scale", math.sqrt(HEADS * (NOPE + ROPE + 1)), 1)
        draw.scalar(f"{at}.attn.bias", 0.5)
        for part in ("attn", "ffn"):
            draw.normal(f"{at}.{part}_norm.weight", WIDTH - 1, mean=1.0)
            draw.scalar(f"{at}.{part}_res.w_y", 1.0)
        if i == 0:
            draw.feed_forward(f"{at}.ffn", 12)
            continue
        draw.normal(f"{at}.ffn.gate.weight", EXPERTS, WIDTH - 1)
        draw.scalar(f"{at}.ffn.gate.bias", 0.0, EXPERTS)
        for e in range(EXPERTS):
            draw.feed_forward(f"{at}.ffn.experts.{e}", 9)
            draw.scalar(f"{at}.ffn.experts.{e}.expert_manifold.k", 1.0 + e / 4)
        draw.feed_forward(f"{at}.ffn.shared_experts", 9)
        draw.scalar(f"{at}.ffn.add_experts.w_y", 1.0)
        draw.scalar(f"{at}.ffn.add_experts.scale", math.log(2))
    draw.ends("norm", "head")
    return draw.state


# --- the definitions ---------------------------------------------------------------------------


def inner(p, q):
    return (p[1:] * q[1:]).sum() - p[0] * q[0]


def lift(x, k=1.0):
    return torch.cat([torch.sqrt((x * x).sum() + k).view(1), x])


def linear(w: State, name: str, p):
    return w[f"{name}.weight"] @ p + w[f"{name}.bias"]


def norm(x, weight):
    return x / torch.sqrt((x * x).mean() + 1e-4) * weight


def join(p, q, weight, scale):
    s = p + weight * q
    s = s / torch.sqrt(-inner(s, s))
    return lift(scale * s[1:])


def turn(x, position: int):
    """Neighbouring components are real and imaginary part of a number that is turned."""
    out = x.clone()
    for j in range(len(x) // 2):
        angle = position / 10000 ** (2 * j / len(x))
        a, b = x[2 * j], x[2 * j + 1]
        out[2 * j] = a * math.cos(angle) - b * math.sin(angle)
        out[2 * j + 1] = a * math.sin(angle) + b * math.cos(angle)
    return out


def feed_forward(w: State, name: str, p, k=1.0):
    """Space components of the result; ``p`` has the expert's own ``k``."""
    gate, up = linear(w, f"{name}.w1.linear", p), linear(w, f"{name}.w3.linear", p)
    return linear(w, f"{name}.w2.linear", lift(gate / (1 + torch.exp(-gate)) * up, k))


def attention(queries, keys, values, tau, bias):
    """One head; spaces of the points in, points out."""
    out = []
    for i, q in enumerate(queries):
        scores = [(2 + 2 * inner(lift(q), lift(k))) / tau + bias for k in keys[: i + 1]]
        share = torch.softmax(torch.stack(scores), 0)
        s = sum(a * lift(v) for a, v in zip(share, values, strict=False))
        out.append(s / torch.sqrt(-inner(s, s)))
    return out


def whole_heads(w: State, name: str, by_head):
    tokens = zip(*by_head, strict=True)
    return [lift(linear(w, name, torch.cat(list(points)))) for points in tokens]


def dense_logits(w: State, ids: list[int]):
    x = [w["token_embed.embedding"][i] for i in ids]
    for n in range(LAYERS):
        at = f"resblocks.{n}"
        h = [lift(norm(p[1:], w[f"{at}.ln_1.weight"])) for p in x]
        parts = {a: [linear(w, f"{at}.attn.W{a}", p).view(HEADS, -1) for p in h] for a in "qkv"}
        by_head = []
        for head in range(HEADS):
            q = [turn(y[head], i) for i, y in enumerate(parts["q"])]
            k = [turn(y[head], i) for i, y in enumerate(parts["k"])]
            v = [y[head] for y in parts["v"]]
            by_head.append(attention(q, k, v, w[f"{at}.attn.scale"], w[f"{at}.attn.bias"]))
        y = whole_heads(w, f"{at}.attn.final_linear", by_head)
        scale = 4 * math.sqrt(WIDTH)
        x = [join(p, q, w[f"{at}.res1.w_y"], scale) for p, q in zip(x, y, strict=True)]
        h = [lift(norm(p[1:], w[f"{at}.ln_2.weight"])) for p in x]
        y = [lift(feed_forward(w, f"{at}.mlp", p)) for p in h]
        x = [join(p, q, w[f"{at}.res2.w_y"], scale) for p, q in zip(x, y, strict=True)]
    x = [lift(norm(linear(w, "final_proj.linear", p), w["ln_final.weight"])) for p in x]
    return torch.stack([w["mapping.weight"] @ p for p in x])


def mixture_logits(w: State, ids: list[int]):
    x = [w["embed.embedding"][i] for i in ids]
    for n in range(LAYERS):
        at = f"layers.{n}"
        h = [lift(norm(p[1:], w[f"{at}.attn_norm.weight"])) for p in x]
        y = latent_attention(w, f"{at}.attn", h)
        scale = math.sqrt(WIDTH)
        x = [join(p, q, w[f"{at}.attn_res.w_y"], scale) for p, q in zip(x, y, strict=True)]
        h = [lift(norm(p[1:], w[f"{at}.ffn_norm.weight"])) for p in x]
        dense_layer = f"{at}.ffn.w1.linear.weight" in w
        y = [
            lift(feed_forward(w, f"{at}.ffn", p)) if dense_layer else experts(w, f"{at}.ffn", p)
            for p in h
        ]
        x = [join(p, q, w[f"{at}.ffn_res.w_y"], scale) for p, q in zip(x, y, strict=True)]
    x = [lift(norm(linear(w, "final_proj.linear", p), w["norm.weight"])) for p in x]
    return torch.stack([w["head.weight"] @ p for p in x])


def latent_attention(w: State, at: str, x):
    heads: list[tuple[list, list, list]] = [([], [], []) for _ in range(HEADS)]
    for i, p in enumerate(x):
        q = linear(w, f"{at}.wq.linear", p).view(HEADS, NOPE + ROPE)
        latent, shared = linear(w, f"{at}.wkv_a.linear", p).split([LATENT, ROPE])
        latent = lift(norm(latent, w[f"{at}.kv_norm.weight"]))
        kv = linear(w, f"{at}.wkv_b.linear", latent).view(HEADS, NOPE + VALUE - 1)
        for head, (queries, keys, values) in enumerate(heads):
            queries.append(torch.cat([q[head, :NOPE], turn(q[head, NOPE:], i)]))
            keys.append(torch.cat([kv[head, :NOPE], turn(shared, i)]))
            values.append(kv[head, NOPE:])
    tau, bias = w[f"{at}.softmax_scale"], w[f"{at}.bias"]
    return whole_heads(w, f"{at}.wo.linear", [attention(*head, tau, bias) for head in heads])


def experts(w: State, at: str, p):
    scores = torch.softmax(w[f"{at}.gate.weight"] @ p[1:], 0)
    chosen = sorted(torch.topk(scores + w[f"{at}.gate.bias"], 2).indices.tolist())
    y = lift(torch.zeros_like(p[1:]))
    for e in chosen:
        k = w[f"{at}.experts.{e}.expert_manifold.k"]
        inside = feed_forward(w, f"{at}.experts.{e}", p * torch.sqrt(k), k)
        y = join(y, lift(inside, k) / torch.sqrt(k), scores[e], 2.0)
    shared = lift(feed_forward(w, f"{at}.shared_experts", p))
    scale = torch.exp(w[f"{at}.add_experts.scale"])
    return join(shared, y, w[f"{at}.add_experts.w_y"], scale)
