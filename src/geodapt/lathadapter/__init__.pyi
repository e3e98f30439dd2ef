from .adapter import LatHAdapter as LatHAdapter
from .meaning import ancestor_shares as ancestor_shares
from .meaning import nearest_to_attributes as nearest_to_attributes
from .meaning import tree_agreement as tree_agreement
from .settings import LatHAdapterSettings as LatHAdapterSettings
