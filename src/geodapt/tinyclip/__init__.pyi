from .base import load_tinyclip as load_tinyclip
from .cache import checkpoint as checkpoint
from .settings import TinyClipSettings as TinyClipSettings
