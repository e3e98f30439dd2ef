from .checkpoints import last_checkpoint as last_checkpoint
from .loop import Fit as Fit
from .loop import Rows as Rows
from .loop import fit as fit
from .loop import parameter_groups as parameter_groups
from .loop import predict as predict
from .loop import trainable_parameters as trainable_parameters
from .settings import TrainingSettings as TrainingSettings
