from .compression import Report as Report
from .compression import compress as compress
from .layer_format import METHODS as METHODS
from .layer_format import LayerFormat as LayerFormat
from .results import LayerReport as LayerReport
from .storage import load as load
from .storage import save as save
from .target import Target as Target
