from .adapter import FeatureAdapter as FeatureAdapter
from .learner import ClassVectors as ClassVectors
from .learner import PromptLearner as PromptLearner
from .settings import CoOp as CoOp
from .settings import MaPLe as MaPLe
from .settings import PlainClip as PlainClip
from .settings import PromptKD as PromptKD
from .settings import PromptSRC as PromptSRC
