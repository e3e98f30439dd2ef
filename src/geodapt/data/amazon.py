"""Amazon Reviews 2023: JSONL of reviews and of metadata by category, from a folder or the hub.

Y. Hou et al., "Bridging Language and Items for Retrieval and Recommendation" (2024).
https://amazon-reviews-2023.github.io
"""

from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from geodapt.data.domain import Domain
from geodapt.data.interactions import Interactions, moment
from geodapt.data.settings import AmazonSettings
from geodapt.data.text_files import existing, filled, find, json_object, not_found, records
from geodapt.errors import InputError, reason_of
from geodapt.hub import require_hub


def load_amazon(settings: AmazonSettings) -> dict[str, Domain]:
    """The categories in the order asked for.

    A customer's reviews in a category, of any rating, are one sequence ordered by time; an item is
    a product (``parent_asin``, all its colours and sizes), its text the title. Products without a
    title are left out. Raises :class:`InputError` for a missing folder, file or hub name, a
    malformed line, and a category with too few products.
    """
    files = {
        name: (_file(settings, name), _file(settings, name, "meta_")) for name in settings.domains
    }
    domains = {}
    for name, (reviews, meta) in files.items():
        titles = dict(records(meta, _title, "a JSON object with parent_asin and title"))
        table = Interactions()
        for customer, product, time in records(
            reviews, _review, "a JSON object with user_id, parent_asin and timestamp"
        ):
            if titles.get(product):
                table.add(customer, product, time)
        texts = [(titles[product], titles[product]) for product in table.item_numbers]
        domains[name] = table.domain(name, texts, settings)
    return domains


def _title(line: str) -> tuple[str, str]:
    product = json_object(line)
    title = product["title"] or ""
    text = title if isinstance(title, str) else str(filled(title, "title"))
    return _name(product, "parent_asin"), " ".join(text.split())


def _review(line: str) -> tuple[str, str, int]:
    review: dict[str, Any] = json_object(line)
    names = _name(review, "user_id"), _name(review, "parent_asin")
    return *names, moment(review["timestamp"])


def _name(record: dict[str, Any], key: str) -> str:
    return str(filled(record[key], key))


def _file(settings: AmazonSettings, category: str, prefix: str = "") -> Path:
    name, path = f"{prefix}{category}.jsonl", settings.path
    if not settings.on_hub:
        folder = existing(path)
        if not folder.is_dir():
            raise InputError(f"{folder} is a file; give the folder of {name} and its like")
        found = find(folder, name)
        if found is None:
            raise not_found(folder, f"{name} or {name}.gz")
        return found
    try:
        inside = f"raw/{prefix or 'review_'}categories/{name}"
        require_hub(path, inside, repo_type="dataset")
        return Path(hf_hub_download(path, inside, repo_type="dataset"))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"data path '{path}' is no folder here, and {inside} could not be fetched from the hub "
            f"({reason_of(error)}); check the names and the network, or download "
            "the files and give their folder"
        ) from error
