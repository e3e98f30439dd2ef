"""HELMs with a head: the next token, and a sequence's class."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import Cache, GenerationMixin
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.modeling_outputs import MoeCausalLMOutputWithPast
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils import can_return_tuple

from geodapt.helm import arguments
from geodapt.helm.arguments import CACHE
from geodapt.helm.balance import sequence_balance_loss
from geodapt.helm.config import HelmConfig
from geodapt.helm.lorentz_layers import Curvature, PointLinear, time_component
from geodapt.helm.model import HelmModel, HelmPreTrainedModel


class HelmForCausalLM(HelmPreTrainedModel, GenerationMixin):
    """A HELM that predicts the next token: logits are a linear map of the last points' space
    components, which may be tied to the embeddings; or of whole points, with the time last."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: HelmConfig) -> None:
        super().__init__(config)
        self.model = HelmModel(config)
        self.vocab_size = config.vocab_size
        if config.head_reads_time:
            self.lm_head = PointLinear(config.hidden_size + 1, config.vocab_size, bias=False)
        else:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Int[Tensor, "rows n"] | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Int[Tensor, "rows n"] | None = None,
        cache: Cache | None = None,
        inputs_embeds: Float[Tensor, "rows n d"] | None = None,
        labels: Int[Tensor, "rows n"] | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        output_router_logits: bool | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> MoeCausalLMOutputWithPast:
        """As LlamaForCausalLM's; ``past_key_values`` is the cache's older name.

        In training, ``loss`` includes the experts' balance loss, which is ``aux_loss``; elsewhere
        it is only the cross entropy. Router logits are returned unless ``output_router_logits``
        is False. Raises as :meth:`HelmModel.forward`.
        """
        config = self.config
        arguments.require_known(
            self, kwargs, arguments.RECORDED | arguments.PACKING | arguments.LOSS
        )
        for_loss = {name: kwargs.pop(name) for name in arguments.LOSS & kwargs.keys()}
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=arguments.one_cache(cache, past_key_values),
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        hidden_states = slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep)
        if config.head_reads_time:
            c = Curvature.of(self.model.curvature_for(hidden_states))
            time = time_component(hidden_states, c)
            hidden_states = torch.cat([hidden_states, time.to(hidden_states.dtype)], dim=-1)
        logits = self.lm_head(hidden_states)
        loss = aux_loss = None
        if labels is not None or for_loss.get("shift_labels") is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=config.vocab_size, **for_loss
            )
        if loss is not None and self.training and outputs.router_logits:
            aux_loss = sequence_balance_loss(
                outputs.router_logits, config, logits.shape[0], attention_mask
            )
            loss = loss + config.router_aux_loss_coef * aux_loss
        return MoeCausalLMOutputWithPast(
            loss=loss,
            aux_loss=aux_loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            router_logits=None if output_router_logits is False else outputs.router_logits,
            **{CACHE: outputs.get(CACHE)},
        )


class HelmForSequenceClassification(GenericForSequenceClassification, HelmPreTrainedModel):
    """A HELM that classifies a sequence by its last token."""
