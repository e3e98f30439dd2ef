from .corpus import Corpus as Corpus
from .corpus import load_corpus as load_corpus
from .settings import ApiTextsSettings as ApiTextsSettings
from .settings import CorpusSettings as CorpusSettings
from .settings import DocsSettings as DocsSettings
from .settings import HubSettings as HubSettings
from .settings import TextSettings as TextSettings
