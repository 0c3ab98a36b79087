"""Which files of a folder are a case's images."""

from __future__ import annotations

import numpy as np
from PIL import Image

from nnunet_semisup.inference.request import Request

COLOURS = {"file_ending": ".png", "channel_names": {"0": "R", "1": "G", "2": "B"}}


def request_of(tmp_path, *names, shape=(6, 5, 3)):
    for name in names:
        Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / name)
    return Request(str(tmp_path), str(tmp_path / "out"), tmp_path, (0,), "final.pth")


def test_the_colours_of_a_picture_are_channels_of_one_file(tmp_path):
    request = request_of(tmp_path, "a_0000.png", "b_0000.png")
    assert request._cases(COLOURS) == (["a", "b"], [])


def test_three_grey_pictures_are_three_channels(tmp_path):
    names = [f"a_{number:04d}.png" for number in range(3)]
    assert request_of(tmp_path, *names, shape=(6, 5))._cases(COLOURS) == (["a"], [])
    (tmp_path / names[2]).unlink()
    _, faults = request_of(tmp_path)._cases(COLOURS)
    assert faults == ["a: there is no a_0002.png (3 channels)"]


def test_hidden_files_which_nnunet_would_read_are_told(tmp_path):
    request = request_of(tmp_path, "a_0000.png", "._a_0000.png")
    _, faults = request._cases(COLOURS)
    assert "hidden files, which nnU-Net takes for images: ._a_0000.png" in faults[0]
