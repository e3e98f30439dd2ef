"""The types of an ``adapter_config.json``'s fields, checked before anything of it is used."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from geodapt.adapters.peft_files.safe_regex import SPECIAL
from geodapt.errors import InputError


def _plain(name: str) -> str:
    if not name or not SPECIAL.isdisjoint(name):
        raise ValueError("not a plain name")
    return name


Name = Annotated[str, Field(max_length=1000)]
PlainName = Annotated[Name, AfterValidator(_plain)]
Text = Annotated[str, Field(max_length=4000)]  # the longest path has 4,096 bytes
Pattern = Annotated[str, Field(min_length=1, max_length=100_000)]
Rank = Annotated[int, Field(ge=1, le=1_000_000)]
TokenIds = Annotated[list[Annotated[int, Field(ge=0, lt=2**62)]], Field(max_length=1_000_000)]
TEXT, SWITCH = "a text of at most 4,000 characters, or null", "true or false"
RANK = "a whole number from 1 to 1,000,000"
TARGETS = "a list of layer names, or a regular expression"


class Blocks(BaseModel):
    """Which layers of a block-diagonal LoRA have blocks of one of their factors."""

    model_config = ConfigDict(strict=True)

    target_modules_bd_a: list[Name] | None = None
    target_modules_bd_b: list[Name] | None = None
    nblocks: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    match_strict: bool = True


class FieldTypes(BaseModel):
    """The fields that geodapt reads, in the types that PEFT writes; others pass."""

    model_config = ConfigDict(strict=True)

    peft_type: Literal["LORA"] = Field(description="LORA")
    task_type: Text | None = Field(None, description=TEXT)
    auto_mapping: dict[Name, Text | bool | int | None] | None = Field(
        None, max_length=100, description="texts by name, or null"
    )
    base_model_name_or_path: Text | None = Field(None, description=TEXT)
    revision: Text | None = Field(None, description=TEXT)
    r: Rank = Field(8, description=RANK)
    lora_alpha: FiniteFloat = Field(8, description="a finite number")
    lora_dropout: float = Field(0.0, ge=0, le=1, description="a number from 0 to 1")
    use_rslora: bool = Field(False, description=SWITCH)
    use_dora: bool = Field(False, description=SWITCH)
    fan_in_fan_out: bool = Field(False, description=SWITCH)
    ensure_weight_tying: bool = Field(False, description=SWITCH)
    inference_mode: bool = Field(False, description=SWITCH)
    init_lora_weights: bool | Text | None = Field(True, description="true, false or a name")
    target_modules: list[Name] | Pattern | None = Field(None, description=TARGETS)
    exclude_modules: list[Name] | Pattern | None = Field(None, description=TARGETS)
    target_parameters: list[Name] | None = Field(
        None, max_length=1000, description="a list of parameter names, or null"
    )
    bias: Literal["none", "all", "lora_only"] = Field("none", description="none, all or lora_only")
    lora_bias: bool = Field(False, description=SWITCH)
    use_bdlora: Blocks | None = Field(
        None, description="null, or which layers have blocks (nblocks, target_modules_bd_a, ..._b)"
    )
    trainable_token_indices: (
        TokenIds | Annotated[dict[Name, TokenIds], Field(max_length=100)] | None
    ) = Field(None, description="token ids in a list, or lists by module name, at most 100")
    modules_to_save: list[PlainName] | None = Field(
        None, max_length=1000, description="a list of module names, or null"
    )
    layers_to_transform: list[int] | int | None = Field(
        None, description="layer numbers in a list, or one number"
    )
    layers_pattern: list[PlainName] | PlainName | None = Field(
        None, description="plain names of the model's lists of layers"
    )
    rank_pattern: dict[Pattern, Rank] | None = Field(
        None, description=f"a mapping from layers to their ranks, each {RANK}"
    )
    alpha_pattern: dict[Pattern, FiniteFloat] | None = Field(
        None, description="a mapping from layers to finite numbers"
    )


def check_types(path: Path, content: Any) -> None:
    """Raises :class:`InputError` that names the file and the field of a wrong type or range."""
    kind = content.get("peft_type") if isinstance(content, dict) else type(content).__name__
    if kind != "LORA":
        raise InputError(f"{path} has peft_type {shown(kind)}; geodapt reads LORA adapters")
    try:
        FieldTypes.model_validate(content)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        key, *inner = (str(part) for part in wrong["loc"])
        value, place = content[key], ""
        if inner and isinstance(value, dict) and inner[0] in value:
            value, place = value[inner[0]], f" at {shown(inner[0])}"
        expected = FieldTypes.model_fields[key].description
        raise InputError(
            f"{path}: {key} is {shown(value)}{place}; expected {expected}. Save the adapter again "
            "with PEFT, or correct the file"
        ) from error


def shown(value: Any) -> str:
    """A value from a file, short enough for a sentence."""
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a whole number of more than 40 digits"
    if isinstance(value, list | dict) and len(value) > 8:
        return f"a {'list' if isinstance(value, list) else 'mapping'} of {len(value):,}"
    try:
        text = "null" if value is None else repr(value[:90] if isinstance(value, str) else value)
    except (RecursionError, ValueError):
        text = "a nested value"
    return text if len(text) <= 80 else text[:77] + "..."
