"""A part behind a stage of an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class Followed(nn.Module):
    """Run a stage, and then a part on its output.

    In place of the stage: an encoder runs it like the stage itself, and estimates of memory count
    its convolutions as before.

    Args:
        stage: of an encoder of dynamic_network_architectures, or its stem.
        part: takes the stage's output.
        sees_input: the part takes the stage's input, too.
    """

    def __init__(self, stage: Any, part: nn.Module, sees_input: bool = False) -> None:
        super().__init__()
        self.stage, self.part, self.sees_input = stage, part, sees_input

    def forward(self, x: Tensor) -> Any:
        """Map the stage's input ``(B, C, *spatial)`` to what the part makes of its output."""
        out = self.stage(x)
        return self.part(out, x) if self.sees_input else self.part(out)

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> Any:
        """Return the stage's own.

        Args:
            input_size: spatial shape of its input.
        """
        stages: Any = self.stage if isinstance(self.stage, nn.Sequential) else [self.stage]
        return sum(
            stage.compute_conv_feature_map_size(input_size)
            for stage in stages
            if hasattr(stage, "compute_conv_feature_map_size")
        )
