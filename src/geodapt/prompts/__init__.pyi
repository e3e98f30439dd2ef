from .adapter import FeatureAdapter as FeatureAdapter
