"""Any base as an encoder of texts to unit vectors, and which of its parts embed texts.

A text model of transformers or sentence-transformers, or the text tower of a CLIP, a SigLIP and the
models that are built like them.
"""

from torch import nn

from geodapt.models import TextEncoder, load_base
from geodapt.models.text_encoder import declared_pooling
from geodapt.tinyclip.base import TINYCLIP, resolve_base, untrained_base
from geodapt.tinyclip.settings import TinyClipSettings
from geodapt.vision.text import ClipTextEncoder


def load_encoder(base: str) -> TextEncoder:
    """Read ``minilm``, ``clip-glyphs``, a folder or a hub name, frozen.

    Raises :class:`InputError` for what is no encoder, and as :func:`geodapt.models.load_base` does.
    """
    location = resolve_base(base)
    model, tokenizer = load_base(location)
    if hasattr(model, "get_text_features"):
        return ClipTextEncoder(model, tokenizer, base)
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    return TextEncoder(model, tokenizer, base, declared_pooling(base, location))


def untrained_encoder(settings: TinyClipSettings) -> TextEncoder:
    """The small CLIP ``clip-glyphs`` before its training: enough to check what would fit it."""
    return ClipTextEncoder(*untrained_base(settings), TINYCLIP)


def is_dual(encoder: TextEncoder) -> bool:
    """Whether an encoder has an image tower beside its text tower."""
    return isinstance(encoder, ClipTextEncoder)


def text_modules(encoder: TextEncoder) -> list[nn.Module]:
    """The parts that embed texts: a dual model's text tower and projection, or all of a text model
    except its pooler, which nothing reads."""
    parts = dict(encoder.model.named_children())
    if is_dual(encoder):
        return [parts[name] for name in ("text_model", "text_projection") if name in parts]
    return [module for name, module in parts.items() if name != "pooler"]


def text_parameters(encoder: TextEncoder) -> list[nn.Parameter]:
    """The parameters of :func:`text_modules`, each once."""
    return list(nn.ModuleList(text_modules(encoder)).parameters())
