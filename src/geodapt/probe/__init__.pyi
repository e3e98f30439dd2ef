from .figures import Figures as Figures
from .figures import measure as measure
from .probing import Probed as Probed
from .probing import probe_source as probe_source
from .source import Source as Source
from .sources import load_source as load_source
from .verdict import verdict as verdict
