"""The configuration of a HELM; attributes are named as in LlamaConfig and DeepseekV3Config."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.modeling_rope_utils import RopeParameters

from geodapt.errors import InputError
from geodapt.helm.presets import PRESETS, RELEASED, RELEASED_EXPERTS

CURVATURES = (0.1, 2.0)  # of the experts by default: evenly spaced between the two
CHOICES = {
    "attention": ("mha", "mla"),
    "position": ("hope", "relative", "none"),
    "scoring_func": ("sigmoid", "softmax"),
    "expert_sum": ("centroid", "nested"),
}


@strict
class HelmConfig(PreTrainedConfig):
    """The configuration of HELM-D where ``n_routed_experts`` is 0, else of HELM-MiCE.

    **Which sizes count the time component.** An attention kernel and the cache get whole points:
    ``head_dim``, ``qk_nope_head_dim``, ``v_head_dim`` and ``kv_lora_rank`` count one time and the
    rest space, so that they can be the powers of two that kernels are built for. All other sizes
    (``hidden_size``, ``intermediate_size``, ``q_lora_rank``, ``qk_rope_head_dim``) count space
    components only.

    **Geometry.** The space has curvature ``-curvature``; ``learn_curvature`` trains it.
    ``expert_curvatures`` holds those of the shared experts and then of the routed ones: a list,
    one number for all (the paper's MICE-CONST, with ``learn_expert_curvatures=False``), or None
    for 0.1 to 2.0 evenly spaced. ``expert_geometries`` names the routed experts' geometries,
    repeated in turn; None stands for ``["hyperbolic"]``.

    **Ablations.** ``attention="mha"`` caches keys and values (HMHA), ``"mla"`` latents (HMLA).
    ``position`` is ``"hope"``, ``"relative"`` (a learned bias per head and distance, in buckets as
    in T5Config) or ``"none"``.

    **Balance of the experts.** Before a training step, ``bias_update_speed`` times the sign of
    (mean load - load) is added to each expert's bias, which takes part in the choice of experts
    alone; ``router_aux_loss_coef`` weighs the sequence-wise loss (DeepSeek-V3, eq. 16 to 20).

    **As the released code has it.** ``released=True`` sets what the paper's official code does
    otherwise (docs/helm.md has the table): every attribute of
    :data:`~geodapt.helm.presets.RELEASED` that is still at its default. Singly:
    ``expert_bias`` and ``latent_query_bias`` (biases of routed experts, and of the queries under
    ``"mla"``), ``output_reads_head_times`` (the output projection reads each head's time, not that
    of all heads together), ``final_projection`` (a Lorentz linear with a bias before the last
    norm), ``head_reads_time`` (logits read the last point's time too), ``residual_scale`` with
    ``learn_residual_scale``, ``expert_sum="nested"`` (routed results join one after another in
    residuals of scale 2, then the shared one), and ``shared_experts_curved=False`` (shared experts
    compute in the model's own space).

    Raises :class:`~geodapt.errors.InputError` for sizes that do not fit together.
    """

    model_type = "helm"
    keys_to_ignore_at_inference = ["cache", "past_key_values"]
    attribute_map = {"num_local_experts": "n_routed_experts"}

    vocab_size: int = 32000
    hidden_size: int = 384
    intermediate_size: int = 1024
    num_hidden_layers: int = 6
    num_attention_heads: int = 6
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    tie_word_embeddings: bool = False
    rope_parameters: RopeParameters | dict | None = None
    attention_bias: bool = False
    mlp_bias: bool = False

    attention: str = "mha"
    position: str = "hope"
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128

    q_lora_rank: int | None = None
    kv_lora_rank: int = 128
    qk_nope_head_dim: int = 64
    qk_rope_head_dim: int = 32
    v_head_dim: int = 64

    n_routed_experts: int = 0
    n_shared_experts: int = 1
    num_experts_per_tok: int = 2
    moe_intermediate_size: int = 512
    first_k_dense_replace: int = 1
    n_group: int = 1
    topk_group: int = 1
    scoring_func: str = "sigmoid"
    norm_topk_prob: bool = True
    routed_scaling_factor: int | float = 1.0
    bias_update_speed: int | float = 0.001
    router_aux_loss_coef: int | float = 0.0001

    curvature: int | float = 1.0
    learn_curvature: bool = False
    expert_curvatures: int | float | list[int | float] | None = None
    learn_expert_curvatures: bool = True
    expert_geometries: list[str] | None = None

    released: bool = False
    expert_bias: bool = False
    latent_query_bias: bool = False
    output_reads_head_times: bool = False
    head_reads_time: bool = False
    final_projection: bool = False
    residual_scale: int | float = 2.0
    learn_residual_scale: bool = True
    expert_sum: str = "centroid"
    shared_experts_curved: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        if self.released:
            self._as_released()
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None and self.num_attention_heads > 0:
            self.head_dim = self.hidden_size // self.num_attention_heads
        super().__post_init__(**kwargs)

    def _as_released(self) -> None:
        width = self.hidden_size + 1  # the released code counts the time
        scale = width**0.5 if self.n_routed_experts else 4 * width**0.5
        wanted = {**RELEASED, "residual_scale": scale}
        if self.n_routed_experts:
            wanted |= RELEASED_EXPERTS
        for name, value in wanted.items():
            given = getattr(self, name)
            if given not in (value, type(self).__dataclass_fields__[name].default):
                raise InputError(
                    f"released sets {name} to {value}, but {name} is {given}; leave one of the two "
                    "out (each attribute that it sets can be given singly)"
                )
            setattr(self, name, value)
        if self.attention == "mla" and self.q_lora_rank is not None:
            raise InputError(
                "q_lora_rank: the released code cannot compute latent queries (its norm has one "
                "component too many); leave q_lora_rank out, or released"
            )

    @classmethod
    def preset(cls, size: str, mice: bool = False, **changes: Any) -> "HelmConfig":
        """``tiny``, ``100m`` or ``1b``, dense with HMHA or with experts and HMLA.

        All but the first have a vocabulary of 128,256 (LLaMA 3's, as in the paper).
        ``100m-released`` and ``1b-released`` have the sizes of the official scripts, 390 and 910
        wide with the time, and compute as the released code does.
        """
        if size not in PRESETS:
            raise InputError(f"no HELM preset '{size}'; there are {', '.join(PRESETS)}")
        dense, experts = PRESETS[size]
        return cls(**{**dense, **(experts if mice else {}), **changes})

    def geometry_of_experts(self) -> list[str]:
        """The geometry of each expert, shared ones (always hyperbolic) first."""
        names = self.expert_geometries or ["hyperbolic"]
        routed = [names[i % len(names)] for i in range(self.n_routed_experts)]
        return ["hyperbolic"] * self.n_shared_experts + routed

    def curvature_of_experts(self) -> list[float]:
        """The curvature that each expert starts with, shared ones first if they have their own."""
        count = self.curved_experts
        if isinstance(self.expert_curvatures, list):
            return [float(c) for c in self.expert_curvatures]
        if self.expert_curvatures is not None:
            return [float(self.expert_curvatures)] * count
        low, high = CURVATURES
        return [low + (high - low) * i / max(1, count - 1) for i in range(count)]

    @property
    def curved_experts(self) -> int:
        """How many experts have a curvature of their own; the last ones, if not all."""
        return self.n_routed_experts + self.n_shared_experts * self.shared_experts_curved

    def validate_architecture(self) -> None:
        """Called when a configuration is made; every message names the attributes at fault."""
        for name, known in CHOICES.items():
            expected = " or ".join(map(repr, known))
            self._expect(name, getattr(self, name) in known, expected)
        self._require_positive()
        self._require_attention()
        if self.head_reads_time and self.tie_word_embeddings:
            raise InputError(
                "tie_word_embeddings: with head_reads_time the head has a weight for the time, "
                "which embeddings have not; leave one of the two out"
            )
        if self.n_routed_experts:
            self._require_experts()

    def validate_rope(self) -> None:
        """transformers' check, of what HoPE rotates: a head's size counts the time."""
        size = self.head_dim
        assert size is not None
        self.head_dim = (size - 1) // 2 * 2
        try:
            super().validate_rope()
        finally:
            self.head_dim = size

    def _expect(self, name: str, right: bool, expected: str) -> None:
        if not right:
            raise InputError(f"{name} is {getattr(self, name)!r}; expected {expected}")

    def _require_positive(self) -> None:
        sizes = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"]
        sizes += ["num_attention_heads", "num_key_value_heads", "max_position_embeddings"]
        for name in sizes:
            self._expect(name, getattr(self, name) >= 1, "1 or more")
        positive = "a positive number c (the space has curvature -c)"
        self._expect("curvature", 0 < self.curvature < float("inf"), positive)
        scaled = 0 < self.residual_scale < float("inf")
        self._expect("residual_scale", scaled, "a positive number")

    def _require_attention(self) -> None:
        heads, groups, size = self.num_attention_heads, self.num_key_value_heads, self.head_dim
        assert groups is not None
        assert size is not None  # __post_init__ has filled both in
        if self.attention == "mha":
            if size == self.hidden_size // heads and self.hidden_size % heads:
                raise InputError(
                    f"hidden_size {self.hidden_size} does not divide into {heads} heads; "
                    "change num_attention_heads or give head_dim"
                )
            if heads % groups:
                raise InputError(
                    f"num_attention_heads {heads} is not a multiple of num_key_value_heads {groups}"
                )
            self._expect(
                "head_dim",
                size >= 3,
                "3 or more: HoPE rotates pairs of components, and one component of a head is the "
                "time",
            )
            return
        if heads != groups:
            raise InputError(
                f"num_key_value_heads is {groups}, but attention 'mla' gives each of its {heads} "
                "heads its own keys and values; leave it out"
            )
        self._expect(
            "qk_rope_head_dim",
            self.qk_rope_head_dim >= 2 and self.qk_rope_head_dim % 2 == 0,
            "an even number of 2 or more: HoPE rotates pairs of components",
        )
        for name in ("kv_lora_rank", "qk_nope_head_dim", "v_head_dim"):
            self._expect(name, getattr(self, name) >= 2, "2 or more: one component is time")

    def _require_experts(self) -> None:
        routed, chosen, groups = self.n_routed_experts, self.num_experts_per_tok, self.n_group
        possible = f"1 to {routed} (of experts)"
        self._expect("num_experts_per_tok", 1 <= chosen <= routed, possible)
        if groups < 1 or routed % groups:
            raise InputError(f"n_routed_experts {routed} does not divide into n_group {groups}")
        self._expect("topk_group", 1 <= self.topk_group <= groups, f"1 to n_group, {groups}")
        if chosen > self.topk_group * (routed // groups):
            raise InputError(
                f"num_experts_per_tok is {chosen}, but topk_group {self.topk_group} leaves "
                f"{self.topk_group * (routed // groups)} experts to choose from"
            )
        curvatures = self.curvature_of_experts()
        if len(curvatures) != self.curved_experts:
            raise InputError(
                f"expert_curvatures has {len(curvatures)} numbers; expected one for each of "
                f"{self.curved_experts - routed} shared and {routed} routed experts"
            )
        wrong = [c for c in curvatures if not 0 < c < float("inf")]
        if wrong:
            raise InputError(
                f"expert_curvatures holds {wrong[0]}; expected positive numbers c: a hyperbolic "
                "expert has curvature -c, a spherical one c"
            )
        self._expect(
            "n_shared_experts",
            self.expert_sum != "nested" or self.n_shared_experts == 1,
            "1, whose result expert_sum 'nested' joins with the routed experts'",
        )
        unknown = set(self.expert_geometries or []) - {"hyperbolic", "spherical", "euclidean"}
        if unknown:
            raise InputError(
                f"expert_geometries holds '{min(unknown)}'; "
                "expected 'hyperbolic', 'spherical' or 'euclidean'"
            )
