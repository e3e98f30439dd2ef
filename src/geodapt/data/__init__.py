"""Real data in several domains: from packages that are installed anyway, and the public data sets.

>>> from geodapt.data import ApiCallSettings, load_domains
>>> domains = load_domains(ApiCallSettings(domains=["networkx"]))  # doctest: +SKIP
>>> domains["networkx"].splits["test"][0]  # doctest: +SKIP
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
