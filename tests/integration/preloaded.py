"""Console scripts in processes that are forked off one that has imported what takes long.

Half of the time of a short command goes to the imports of torch and of nnU-Net's other libraries.
Neither nnU-Net nor this package's trainers are imported before the fork: they read the environment.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping, Sequence

from nnunet_semisup import _discovery

LIBRARIES = (
    *("torch._dynamo", "torch.nn.parallel", "matplotlib.pyplot", "seaborn", "pandas"),
    *("scipy.ndimage", "scipy.stats", "skimage.morphology", "skimage.transform", "skimage.measure"),
    *("sklearn.model_selection", "nibabel", "SimpleITK", "blosc2"),
    *("batchgenerators", "batchgeneratorsv2.transforms.base.basic_transform"),
    "dynamic_network_architectures.architectures.unet",
    "acvl_utils.cropping_and_padding.padding",
)
"""What ``nnUNetv2_train`` and ``nnUNetv2_predict`` import."""


def as_if_started(line: Sequence[str], environment: Mapping[str, str], output: str) -> None:
    """Makes this process what starting ``line`` would have made it, and runs it.

    What the package's ``.pth`` file does to the environment when Python starts is done here.
    """
    multiprocessing.set_start_method(None, force=True)  # what Python's default is, not this fork's
    os.setsid()
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    _discovery.install()
    sys.argv = list(line)
    runpy.run_path(line[0], run_name="__main__")


def run_preloaded(
    line: Sequence[str], environment: Mapping[str, str], output: str, timeout: float
) -> int:
    """Runs a Python script to its end, with both of its output streams in the file ``output``.

    Returns its exit code, negative for a signal.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(LIBRARIES))
    process = context.Process(target=as_if_started, args=(line, environment, output))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError(f"{' '.join(line)} was still running after {timeout:.0f} s")
    return process.exitcode
