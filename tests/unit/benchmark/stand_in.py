"""Stand in for ``nnUNetv2_train``: an epoch is a file, predictions are the references.

Train as many epochs as ``num_epochs`` says, 0.05 s each, go on with ``--c``,
save on SIGTERM, and fail where ``fail`` stands in the hyper-parameters.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from itertools import pairwise
from pathlib import Path

SET, PREPROCESSED, RESULTS = "nnUNet_semisup_set", "nnUNet_preprocessed", "nnUNet_results"
_, number, configuration, fold, *options = sys.argv
given = dict(pairwise(options))
settings = dict(part.partition("=")[::2] for part in os.environ[SET].split(","))
preprocessed = next(Path(os.environ[PREPROCESSED]).glob(f"Dataset{number}_*"))
name = f"{given['-tr']}__{given['-p']}__{configuration}"
folder = Path(os.environ[RESULTS], preprocessed.name, name, f"fold_{fold}")
folder.mkdir(parents=True, exist_ok=True)
if "fail" in settings:
    sys.exit("this training fails")
latest, stopped = folder / "checkpoint_latest.pth", []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
begin = int(latest.read_text()) if latest.exists() and "--c" in options else 0
with (folder / f"training_log_{time.time_ns()}.txt").open("w") as log:
    for epoch in range(begin, int(settings["num_epochs"])):
        print(f"Epoch {epoch} ", file=log, flush=True)
        time.sleep(0.05)
        print("Epoch time: 0.05 s", file=log, flush=True)
        latest.write_text(str(epoch + 1))
        with (folder / "epochs.txt").open("a") as done:
            print(epoch, file=done)
        if stopped:
            sys.exit(143)
(folder / "validation").mkdir(exist_ok=True)
for case in json.loads((preprocessed / "splits_final.json").read_text())[0]["val"]:
    shutil.copy(preprocessed / "gt_segmentations" / f"{case}.nii.gz", folder / "validation")
(folder / "validation" / "summary.json").write_text("{}")
latest.rename(folder / "checkpoint_final.pth")
