"""A layer of CAT-Seg's head: attention of each class over places, then of each place over classes.

Source: Cho et al. 2024, "CAT-Seg"; the windows are Liu et al. 2021 (Swin), the linear attention is
Katharopoulos et al. 2020.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, elu, interpolate, pad, scaled_dot_product_attention

Grid = tuple[int, int]


class AggregationLayer(nn.Module):
    """Two blocks of window attention per class, guided by the image; one over classes, by texts."""

    def __init__(self, width: int, heads: int, window: int, classes: int) -> None:
        super().__init__()
        self.guidance_norm = nn.LayerNorm(width)
        self.spatial = nn.ModuleList(
            SpatialBlock(width, heads, window, shift) for shift in (0, window // 2)
        )
        self.over_classes = ClassBlock(width, heads, classes)

    def forward(
        self,
        x: Float[Tensor, "images classes c h w"],
        image: Float[Tensor, "images c h w"],
        text: Float[Tensor, "images classes c"],
        pooling: int,
    ) -> Float[Tensor, "images classes c h w"]:
        """``image`` and ``text`` guide; ``pooling`` places on a side share their attention."""
        images, classes = x.shape[:2]
        places = x.flatten(0, 1).permute(0, 2, 3, 1)  # rows h w c
        guidance = self.guidance_norm(image.permute(0, 2, 3, 1)).repeat_interleave(classes, dim=0)
        for block in self.spatial:
            places = block(places, guidance)
        x = places.permute(0, 3, 1, 2).unflatten(0, (images, classes))
        return self.over_classes(x, text, pooling)


class SpatialBlock(nn.Module):
    """A Swin block whose queries and keys also see the guidance.

    Windows are at most as large as the grid. A grid that they do not divide is padded; padding and
    places that a shift brought together from opposite edges do not attend to one another.
    """

    def __init__(self, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key = nn.Linear(2 * width, width), nn.Linear(2 * width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(
        self, x: Float[Tensor, "rows h w c"], guidance: Float[Tensor, "rows h w c"]
    ) -> Float[Tensor, "rows h w c"]:
        x = x + self.attention(self.norm1(x), guidance)
        return x + self.mlp(self.norm2(x))

    def attention(self, x: Tensor, guidance: Tensor) -> Tensor:
        grid = (x.shape[1], x.shape[2])
        window = (min(self.window, grid[0]), min(self.window, grid[1]))
        shift = tuple(
            self.shift if size > own else 0 for size, own in zip(grid, window, strict=True)
        )
        both = torch.cat([x, guidance], dim=-1)
        query, key, value = (
            self._windows(project(rows), window, shift)
            for project, rows in ((self.query, both), (self.key, both), (self.value, x))
        )
        alike = _same_region(grid, window, shift, x.device)
        if alike is not None:
            alike = alike.repeat(len(x), 1, 1).unsqueeze(1)
        found = scaled_dot_product_attention(query, key, value, alike)
        return self.out(self._grid(found, grid, window, shift))

    def _windows(self, x: Tensor, window: Grid, shift: tuple[int, ...]) -> Tensor:
        """(rows, h, w, c) as (rows * windows, heads, places, c / heads)."""
        _, height, width, channels = x.shape
        x = pad(x, (0, 0, 0, -width % window[1], 0, -height % window[0]))
        if any(shift):
            x = x.roll((-shift[0], -shift[1]), (1, 2))
        x = x.unflatten(1, (-1, window[0])).unflatten(3, (-1, window[1])).transpose(2, 3)
        x = x.reshape(-1, window[0] * window[1], self.heads, channels // self.heads)
        return x.transpose(1, 2)

    def _grid(self, x: Tensor, grid: Grid, window: Grid, shift: tuple[int, ...]) -> Tensor:
        """The inverse of :meth:`_windows`."""
        down, across = (-(-size // own) for size, own in zip(grid, window, strict=True))
        x = x.transpose(1, 2).flatten(2).unflatten(1, window)
        x = x.unflatten(0, (-1, down, across)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        if any(shift):
            x = x.roll(shift, (1, 2))
        return x[:, : grid[0], : grid[1]]


def _same_region(
    grid: Grid, window: Grid, shift: tuple[int, ...], device: torch.device
) -> Bool[Tensor, "windows places places"] | None:
    """Which places of each window may attend to each other; None where all may."""
    if not any(shift) and all(size % own == 0 for size, own in zip(grid, window, strict=True)):
        return None
    axes = []
    for size, own, moved in zip(grid, window, shift, strict=True):
        # Numbers of the regions along an axis, as the roll leaves them: what it brought from the
        # front stands at the end, and padding is a region of its own.
        padded = size + -size % own
        region = torch.arange(padded, device=device).roll(-moved)
        axes.append(torch.where(region >= size, 2, (region < moved).long()))
    region = 3 * axes[0][:, None] + axes[1]
    parts = region.unflatten(0, (-1, window[0])).unflatten(2, (-1, window[1])).transpose(1, 2)
    parts = parts.reshape(-1, window[0] * window[1])
    return parts[:, :, None] == parts[:, None, :]


class ClassBlock(nn.Module):
    """Linear attention over the classes of each place, on a pooled grid, added to the input.

    Fewer than ``classes`` are filled up with one learned class.
    """

    def __init__(self, width: int, heads: int, classes: int) -> None:
        super().__init__()
        self.heads, self.classes = heads, classes
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key = nn.Linear(2 * width, width), nn.Linear(2 * width, width)
        self.value = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)
        )
        self.filler, self.filler_text = (nn.Parameter(torch.zeros(width)) for _ in range(2))

    def forward(
        self,
        x: Float[Tensor, "images classes c h w"],
        text: Float[Tensor, "images classes c"],
        pooling: int,
    ) -> Float[Tensor, "images classes c h w"]:
        images, classes, channels, *grid = x.shape
        pooled = x.flatten(0, 1)
        if pooling > 1:
            pooled = avg_pool2d(pooled, pooling, ceil_mode=True)
        small = pooled.shape[2:]
        rows = pooled.unflatten(0, (images, classes)).permute(0, 3, 4, 1, 2)
        rows = self._filled(rows.flatten(1, 2), self.filler)  # images places classes c
        texts = self._filled(text.unsqueeze(1), self.filler_text).expand(-1, rows.shape[1], -1, -1)
        normed = self.norm1(rows)
        both = torch.cat([normed, texts], dim=-1)
        rows = rows + linear_attention(
            *(
                part.unflatten(-1, (self.heads, -1)).transpose(2, 3)
                for part in (self.query(both), self.key(both), self.value(normed))
            )
        ).transpose(2, 3).flatten(3)
        rows = (rows + self.mlp(self.norm2(rows)))[:, :, :classes]
        found = rows.permute(0, 2, 3, 1).reshape(images * classes, channels, *small)
        if tuple(small) != tuple(grid):
            found = interpolate(found, size=grid, mode="bilinear", align_corners=True)
        return x + found.unflatten(0, (images, classes))

    def _filled(self, rows: Tensor, filler: Tensor) -> Tensor:
        missing = max(0, self.classes - rows.shape[2])
        filling = filler.expand(*rows.shape[:2], missing, -1)
        return torch.cat([rows, filling], dim=2)


def linear_attention(
    query: Float[Tensor, "*batch n d"],
    key: Float[Tensor, "*batch m d"],
    value: Float[Tensor, "*batch m e"],
) -> Float[Tensor, "*batch n e"]:
    """``phi(Q) (phi(K)^T V) / (phi(Q) sum phi(K))``, ``phi = elu + 1`` (Katharopoulos, eq. 5)."""
    query, key = elu(query) + 1, elu(key) + 1
    weight = query @ key.sum(-2).unsqueeze(-1)
    return query @ (key.mT @ value) / (weight + 1e-6)
