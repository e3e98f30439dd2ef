from .compression import LayerReport as LayerReport
from .compression import Report as Report
from .compression import compress as compress
from .forms import METHODS as METHODS
from .forms import Form as Form
from .storage import load as load
from .storage import save as save
from .target import Target as Target
