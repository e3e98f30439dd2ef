from .recipes.running import Run as Run
from .recipes.running import run as run

__version__: str
