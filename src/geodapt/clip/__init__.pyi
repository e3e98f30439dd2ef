from .cache import checkpoint as checkpoint
from .loading import Clip as Clip
from .loading import load_clip as load_clip
from .settings import ClipSettings as ClipSettings
