"""The base of every configuration: typed, documented, unknown keys rejected."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A pydantic model that refuses keys it does not know and assignments of the wrong type."""

    model_config = ConfigDict(
        extra="forbid", validate_assignment=True, use_attribute_docstrings=True
    )
