"""Real data in several domains: what is on every machine already, and the public data sets.

>>> from geodapt.data import ApiCallSettings, load_domains
>>> domains = load_domains(ApiCallSettings(domains=["networkx"]))  # doctest: +SKIP
>>> domains["networkx"].splits["test"][0]  # doctest: +SKIP
"""

from typing import Annotated

from pydantic import Field

from geodapt.data.api_calls import ApiCallSettings, load_api_calls, module_tree
from geodapt.data.domain import Domain, LabelledDomain

DataSettings = Annotated[ApiCallSettings, Field()]
"""Where data comes from: the ``data:`` part of a recipe, told apart by its ``kind``."""


def load_domains(settings: DataSettings) -> dict[str, Domain]:
    """The domains of a data set, in the order asked for."""
    return load_api_calls(settings)


__all__ = [
    "ApiCallSettings",
    "DataSettings",
    "Domain",
    "LabelledDomain",
    "load_domains",
    "module_tree",
]
