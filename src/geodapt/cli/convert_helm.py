"""`geodapt convert-helm`: the paper's released weights as a model of transformers."""

from pathlib import Path
from typing import Annotated

import typer

from geodapt.cli.quiet import quiet
from geodapt.cli.run import Debug
from geodapt.console import Console


def convert_helm(
    checkpoint: Annotated[
        Path, typer.Argument(help="An official HELM's weights: .safetensors, or .pt of torch.save.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder or hub name of its tokenizer, to save beside it.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Turn official HELM weights into a model of transformers.

    AutoModelForCausalLM.from_pretrained loads the folder, after import geodapt.helm.

    \b
    Example:
      geodapt convert-helm Step1000.pt --out helm/ --tokenizer meta-llama/Llama-3.1-8B
    """
    with quiet(debug):
        from geodapt.paths import given, regular

        source = regular(given(checkpoint))  # a wrong name is told before torch is imported
        from geodapt.data.corpus.tokens import load_tokenizer
        from geodapt.files import atomic_folder  # imported late: --help should be quick
        from geodapt.helm.released_state import read_released
        from geodapt.helm.released_weights import convert_released

        words = load_tokenizer(tokenizer) if tokenizer is not None else None
        helm = convert_released(read_released(source))
        with atomic_folder(given(out)) as temporary:
            helm.save_pretrained(temporary)
            if words is not None:
                words.save_pretrained(temporary)
        millions = sum(parameter.numel() for parameter in helm.parameters()) / 1e6
    Console(markup=False, highlight=False).print(
        f"{out}: {millions:,.1f} million parameters; load it by "
        "AutoModelForCausalLM.from_pretrained after import geodapt.helm"
    )
