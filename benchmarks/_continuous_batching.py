"""transformers' own continuous batching, which knows no adapters: the base answers alone."""

from collections.abc import Sequence

from transformers import GenerationConfig, PreTrainedModel
from transformers.generation import ContinuousBatchingConfig

from geodapt.serve.generation import Generation


def continuous_batches(
    model: PreTrainedModel, asked: Sequence[Generation], rows: int
) -> list[list[int]]:
    """The answers of its manager, so many requests at once, in the order of the requests.

    Its prefixes are not shared between requests, and its cache has room for all rows; without
    ``num_blocks`` it takes most of the machine's memory.
    """
    longest = max(len(each.prompt) + each.sampling.max_new_tokens for each in asked)
    settings = ContinuousBatchingConfig(
        page_size=256,
        num_blocks=rows * (longest // 256 + 1),
        max_batch_tokens=256,
        max_requests_per_batch=rows,
        allow_block_sharing=False,
        use_cuda_graph=False,
        use_async_batching=False,
    )
    greedy = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)
    found: dict[str, list[int]] = {}
    with model.continuous_batching_context_manager(
        generation_config=greedy, continuous_batching_config=settings
    ) as manager:
        names = [
            manager.add_request(list(each.prompt), max_new_tokens=each.sampling.max_new_tokens)
            for each in asked
        ]
        while len(found) < len(names):
            result = manager.get_result(timeout=1)
            if result is None and not manager.is_running():
                raise RuntimeError("transformers' continuous batching has ended by itself")
            if result is not None and result.error is not None:
                raise RuntimeError(result.error)
            if result is not None and result.is_finished():
                found[result.request_id] = list(result.generated_tokens)
    return [found[name] for name in names]
