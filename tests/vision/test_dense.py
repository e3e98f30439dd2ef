"""Patch features beside slow references, written from their formulas with bare weights."""

import pytest
import torch
from torch.nn.functional import gelu, interpolate, layer_norm, normalize

from geodapt.errors import InputError
from geodapt.vision import Clip
from tests.vision.duals import FAMILIES, PATCH, SIDE, dual, pictures, squares


@pytest.fixture(scope="module", params=FAMILIES)
def clip(request) -> Clip:
    return dual(request.param)


class Reference:
    """One picture at a time in float64, from the weights by their names."""

    def __init__(self, clip: Clip) -> None:
        self.weights = {
            name: value.double()
            for name, value in clip.model.state_dict().items()
            if name.startswith(("vision_model", "visual_projection"))
        }
        self.config = clip.model.config.vision_config
        self.siglip = "siglip" in clip.name

    def linear(self, name, x):
        bias = self.weights.get(f"vision_model.{name}.bias", 0.0)
        return x @ self.weights[f"vision_model.{name}.weight"].T + bias

    def norm(self, name, x):
        weight, bias = (self.weights[f"vision_model.{name}.{kind}"] for kind in ("weight", "bias"))
        return layer_norm(x, x.shape[-1:], weight, bias, self.config.layer_norm_eps)

    def activation(self, x):
        if self.config.hidden_act == "quick_gelu":
            return x * torch.sigmoid(1.702 * x)
        approximate = "tanh" if "tanh" in self.config.hidden_act else "none"
        return gelu(x, approximate=approximate)

    def mlp(self, name, x):
        return self.linear(f"{name}.fc2", self.activation(self.linear(f"{name}.fc1", x)))

    def attention(self, name, x):
        heads, size = self.config.num_attention_heads, x.shape[-1]
        mixed = []
        q, k, v = (self.linear(f"{name}.{part}_proj", x) for part in "qkv")
        for head in range(heads):
            cut = slice(head * size // heads, (head + 1) * size // heads)
            scores = q[:, cut] @ k[:, cut].T / (size // heads) ** 0.5
            mixed.append(scores.softmax(-1) @ v[:, cut])
        return self.linear(f"{name}.out_proj", torch.cat(mixed, dim=-1))

    def embedded(self, pixels):
        """Patches with their positions, and the class token in front where there is one."""
        weight = self.weights["vision_model.embeddings.patch_embedding.weight"]
        bias = self.weights.get("vision_model.embeddings.patch_embedding.bias", 0.0)
        positions = self.weights["vision_model.embeddings.position_embedding.weight"]
        rows, columns = pixels.shape[1] // PATCH, pixels.shape[2] // PATCH
        patches = []
        for row in range(rows):
            for column in range(columns):
                cut = pixels[
                    :, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH
                ]
                if weight.dim() == 2:
                    patches.append(weight @ cut.permute(1, 2, 0).flatten() + bias)
                else:
                    patches.append((weight * cut).sum((1, 2, 3)) + bias)
        x = torch.stack(patches)
        class_position, grid = (None, positions) if self.siglip else (positions[0], positions[1:])
        side = round(len(grid) ** 0.5)
        as_map = grid.T.unflatten(1, (side, side))[None]
        if (rows, columns) != (side, side):
            mode = "bilinear" if weight.dim() == 2 else "bicubic"
            more = {"antialias": True} if weight.dim() == 2 else {}
            as_map = interpolate(as_map, (rows, columns), mode=mode, align_corners=False, **more)
        x = x + as_map[0].flatten(1).T
        if class_position is None:
            return x
        own = self.weights["vision_model.embeddings.class_embedding"] + class_position
        before = "pre_layrnorm" if "vision_model.pre_layrnorm.weight" in self.weights else None
        return self.norm(before or "pre_layernorm", torch.cat([own[None], x]))

    def layer(self, number, x):
        name = f"encoder.layers.{number}"
        x = x + self.attention(f"{name}.self_attn", self.norm(f"{name}.layer_norm1", x))
        return x + self.mlp(f"{name}.mlp", self.norm(f"{name}.layer_norm2", x))

    def features(self, pixels, residual):
        x = self.embedded(pixels.double())
        layers = self.config.num_hidden_layers
        for number in range(layers - (not self.siglip)):
            x = self.layer(number, x)
        if self.siglip:
            h = self.norm("post_layernorm", x)
            d = h.shape[-1]
            weight = self.weights["vision_model.head.attention.in_proj_weight"][2 * d :]
            bias = self.weights["vision_model.head.attention.in_proj_bias"][2 * d :]
            y = self.linear("head.attention.out_proj", h @ weight.T + bias)
            return y + self.mlp("head.mlp", self.norm("head.layernorm", y))
        name = f"encoder.layers.{layers - 1}"
        kept = {"class": x[:1], "patch": x[1:], "none": 0}[residual]
        value = self.linear(f"{name}.self_attn.v_proj", self.norm(f"{name}.layer_norm1", x[1:]))
        y = self.linear(f"{name}.self_attn.out_proj", value) + kept
        y = y + self.mlp(f"{name}.mlp", self.norm(f"{name}.layer_norm2", y))
        return self.norm("post_layernorm", y) @ self.weights["visual_projection.weight"].T


@pytest.mark.parametrize("residual", ["class", "patch", "none"])
@pytest.mark.parametrize(("height", "width"), [(SIDE, SIDE), (2 * PATCH, 5 * PATCH)])
@torch.no_grad()
def test_features_are_those_of_the_formula(clip, residual, height, width):
    pixels = squares(2, height, width)
    siglip = "siglip" in clip.name
    found = clip.dense_features(pixels, None if siglip else residual).features
    assert found.shape[2:] == (height // PATCH, width // PATCH)
    reference = Reference(clip)
    for row, picture in zip(found, pixels, strict=True):
        wanted = normalize(reference.features(picture, residual), dim=-1)
        torch.testing.assert_close(row.flatten(1).T.double(), wanted, atol=2e-5, rtol=0)


@torch.no_grad()
def test_a_probe_that_attends_to_one_patch_gives_that_patchs_feature():
    """SigLIP's pooled vector of a picture with a single patch is that patch's feature."""
    clip = dual("siglip")
    pixels = squares(2, PATCH, PATCH)
    pooled = clip.model.get_image_features(pixels, interpolate_pos_encoding=True).pooler_output
    found = clip.dense_features(pixels).features[:, :, 0, 0]
    torch.testing.assert_close(found, normalize(pooled, dim=-1))


@torch.no_grad()
def test_the_reference_itself_gives_the_models_last_states():
    clip = dual("clip")
    pixels = squares(1)
    x = Reference(clip).embedded(pixels[0].double())
    for number in range(3):
        x = Reference(clip).layer(number, x)
    wanted = clip.model.vision_model(pixels).last_hidden_state[0].double()
    torch.testing.assert_close(x, wanted, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_hidden_states_are_the_models_own(clip):
    pixels = squares()
    found = clip.dense_features(pixels, layers=(1, 3)).hidden
    if clip.name == "siglip2":
        patches = pixels.unflatten(3, (4, PATCH)).unflatten(2, (4, PATCH))
        patches = patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        mask, shapes = torch.ones(2, 16, dtype=torch.long), torch.tensor([[4, 4], [4, 4]])
        states = clip.model.vision_model(patches, mask, shapes, output_hidden_states=True)
    else:
        states = clip.model.vision_model(pixels, output_hidden_states=True)
    first = 0 if "siglip" in clip.name else 1
    for layer, given in zip((1, 3), found, strict=True):
        wanted = states.hidden_states[layer][:, first:].transpose(1, 2).unflatten(2, (4, 4))
        torch.testing.assert_close(given, wanted)


@torch.no_grad()
def test_flexible_patches_are_those_of_the_processor():
    """SigLIP 2's own processor and our cutting lead to the same features."""
    clip = dual("siglip2")
    picture = pictures(1, (SIDE, SIDE))
    own = clip.pixels(picture)
    assert own["spatial_shapes"].tolist() == [[4, 4]]
    ours = clip.normalise(picture)
    patches = ours.unflatten(3, (4, PATCH)).unflatten(2, (4, PATCH))
    patches = patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    torch.testing.assert_close(patches, own["pixel_values"], atol=1e-5, rtol=0)


def test_normalised_pictures_are_the_processors():
    for family in ("clip", "siglip"):
        clip = dual(family)
        same = pictures(2, (SIDE, SIDE))
        torch.testing.assert_close(
            clip.normalise(same), clip.pixels(same)["pixel_values"], atol=1e-5, rtol=0
        )
        assert clip.normalise(pictures(2), (16, 24)).shape == (2, 3, 16, 24)


def test_gradients_reach_the_value_path_and_bfloat16_works(clip):
    layer = clip.model.vision_model.encoder.layers[-1]
    layer.self_attn.v_proj.weight.requires_grad_(True)
    clip.dense_features(squares()).features.sum().backward()
    gradient = layer.self_attn.v_proj.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0
    layer.self_attn.v_proj.weight.requires_grad_(False).grad = None
    with torch.autocast("cpu", torch.bfloat16):
        low = clip.dense_features(squares()).features
    similar = (low * clip.dense_features(squares()).features).sum(1)
    assert similar.min() > 0.98


@pytest.mark.parametrize(
    ("pixels", "options", "said"),
    [
        (torch.zeros(1, 3, 30, 32), {}, "32 x 30 pixels do not divide into patches of 8"),
        (torch.zeros(3, 32, 32), {}, "expected \\(n, 3, height, width\\)"),
        (torch.zeros(1, 3, 32, 32), {"layers": [4]}, "layer 4 does not exist: there are 3"),
    ],
)
def test_what_has_no_features(clip, pixels, options, said):
    with pytest.raises(InputError, match=said):
        clip.dense_features(pixels, **options)


def test_a_residual_is_clips_alone():
    with pytest.raises(InputError, match="residual 'class' is for CLIP"):
        dual("siglip").dense_features(squares(), "class")
