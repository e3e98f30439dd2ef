"""The Gaussian average of the weights at the ends of epochs.

Source: Khattak et al. 2023, "Self-regulating prompts", equation 7.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from geodapt.prompts.settings import PromptSRC


def epoch_weights(epochs: int, mean: float, std: float) -> list[float]:
    """Weights of epochs 1, 2, ... that add up to 1, as a normal density has them."""
    squares = [((epoch - mean) / std) ** 2 / 2 for epoch in range(1, epochs + 1)]
    least = min(squares)  # so that far from the mean not all of them are 0
    values = [math.exp(least - square) for square in squares]
    return [value / sum(values) for value in values]


class GaussianAverage(nn.Module):
    """Sums in buffers, which checkpoints keep: a resumed training ends with the same average."""

    def __init__(self, parameters: Iterable[Tensor], weights: list[float]) -> None:
        super().__init__()
        self.weights = weights
        self._parameters_of_it = list(parameters)
        for number, parameter in enumerate(self._parameters_of_it):
            self.register_buffer(f"sum_{number}", torch.zeros_like(parameter))

    @torch.no_grad()
    def add(self, epoch: int) -> None:
        """Add the weights as they are after this epoch, counted from 0."""
        for total, parameter in self._pairs():
            total.add_(parameter, alpha=self.weights[epoch])

    @torch.no_grad()
    def apply_average(self) -> None:
        """Put the average in place of the weights."""
        for total, parameter in self._pairs():
            parameter.copy_(total)

    def _pairs(self):
        for number, parameter in enumerate(self._parameters_of_it):
            yield getattr(self, f"sum_{number}"), parameter


def average_of(settings: PromptSRC, parameters: Iterable[Tensor], epochs: int) -> GaussianAverage:
    """The average that settings ask for: by default around 3/4 of the epochs, 1/20 wide."""
    mean = 0.75 * epochs if settings.average_mean is None else settings.average_mean
    std = 0.05 * epochs if settings.average_std is None else settings.average_std
    return GaussianAverage(parameters, epoch_weights(epochs, mean, std))
