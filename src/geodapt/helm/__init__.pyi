from .registered import HelmConfig as HelmConfig
from .registered import HelmForCausalLM as HelmForCausalLM
from .registered import HelmForSequenceClassification as HelmForSequenceClassification
from .registered import HelmModel as HelmModel
from .registered import HelmPreTrainedModel as HelmPreTrainedModel
