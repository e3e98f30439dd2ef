"""The page at ``/``, which needs nothing from elsewhere."""

import secrets

from geodapt.pages.rendering import templates


def status_page(base: str) -> tuple[str, str]:
    """The page's HTML, and the nonce under which alone its script and style may run."""
    nonce = secrets.token_urlsafe(16)
    template = templates.get_template("geodapt.serve.http/status.html")
    return template.render(base=base, nonce=nonce), nonce
