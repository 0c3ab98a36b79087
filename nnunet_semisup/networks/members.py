"""Several networks, or several decoders on one encoder, that learn from one another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from nnunet_semisup.networks.decode import Decoded, decode, encode
from nnunet_semisup.networks.training_network import Outputs, TrainingNetwork


class Members(TrainingNetwork):
    """Run members of equal rank in one call; member 0 is the network that predicts.

    One call, because distributed training that looks for unused parameters, as ours does, takes two
    calls with different parameters before one backward pass for an error ("Expected to mark a
    variable ready only once", torch 2.14).

    Args:
        predictor: the network that predicts, with an encoder and a decoder.
        others: the further members: decoders (``shared_encoder``) or networks.
        shared_encoder: the members are decoders on the predictor's encoder. If the predictor has
            a method ``encode`` (:func:`~nnunet_semisup.networks.decode.encode`), all of them get
            its features; a network of ``others`` is asked for its own.

    State dicts have the keys ``predictor.*`` and ``others.<number>.*``, counted from 0.
    """

    def __init__(self, predictor: Any, others: Iterable[nn.Module], shared_encoder: bool) -> None:
        super().__init__(predictor)
        self.others = nn.ModuleList(others)
        self.shared_encoder = shared_encoder

    def networks(self) -> list[nn.Module]:
        """Return the members, each with its own layers; the shared encoder is the predictor's."""
        return [self.predictor, *self.others]

    def forward(
        self,
        x: Tensor,
        which: Sequence[int] | None = None,
        features: bool = False,
        apart: bool = False,
    ) -> Outputs:
        """Return the logits of the first member asked for, and as ``parts`` a tuple of Decoded.

        Args:
            x: images ``(B, C, *spatial)``.
            which: numbers of the members to run, at least one, in the order of ``parts``; ``None``
                runs all. The others' own layers take no time and get no gradient.
            features: give the decoders' features as well, else ``()``: distributed training that
                looks for unused parameters copies every tensor it returns (torch 2.14).
            apart: the batch holds images of their own for each of the networks, in the order of
                ``parts``, as many for each; not for decoders on one encoder.

        Raises:
            TypeError: ``apart``, and the members share an encoder.
        """
        if apart and self.shared_encoder:
            raise TypeError("decoders on one encoder see the same images")
        asked = range(1 + len(self.others)) if which is None else which
        members: list[Any] = [self.predictor, *self.others]
        if self.shared_encoder:
            decoders = [self.predictor.decoder, *self.others]
            skips = encode(self.predictor, x)
            parts = tuple(decode(decoders[number], skips) for number in asked)
        else:
            images = x.chunk(len(asked)) if apart else [x] * len(asked)
            pairs = zip(asked, images, strict=True)
            parts = tuple(_pass(members[number], image) for number, image in pairs)
        if not features:
            parts = tuple(part._replace(features=()) for part in parts)
        return Outputs(parts[0].logits, parts)


def _pass(network: Any, x: Tensor) -> Decoded:
    return decode(network.decoder, encode(network, x))
