from .attachment import Scaling as Scaling
from .attachment import ScalingSettings as ScalingSettings
from .attachment import scale as scale
from .scaling import BlockScaling as BlockScaling
