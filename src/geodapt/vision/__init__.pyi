from .clip import Clip as Clip
from .clip import load_clip as load_clip
