#!/usr/bin/env bash
# nnU-Net: its loader looks for all loaded libraries anew in every batch, to limit their threads.
#
# generate_train_batch enters threadpoolctl's threadpool_limits, which reads the process' memory map
# and takes each BLAS and OpenMP library apart again, in every batch, beside the augmentation. A
# ThreadpoolController that is kept does the same in a fraction of it. It costs the more, the more
# is loaded: as much as a training loads is loaded here.
#
# Seen with nnunetv2 2.8.1, threadpoolctl 3.6.0, torch 2.13.0 on an AMD EPYC: 3.6 ms against 0.02 ms.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check torch==2.13.0 nnunetv2==2.8.1 threadpoolctl==3.6.0
export nnUNet_raw=$folder nnUNet_preprocessed=$folder nnUNet_results=$folder
env/bin/python - <<'PY'
import inspect
import sys
import time

import nnunetv2.run.run_training
from nnunetv2.training.dataloading import data_loader
from threadpoolctl import ThreadpoolController, threadpool_limits


def milliseconds(enter):
    with enter():
        pass
    start = time.process_time()
    for _ in range(20):
        with enter():
            pass
    return 1e3 * (time.process_time() - start) / 20


used = inspect.getsource(data_loader.nnUNetDataLoader.generate_train_batch)
kept = ThreadpoolController()
anew = milliseconds(lambda: threadpool_limits(limits=1, user_api=None))
again = milliseconds(lambda: kept.limit(limits=1, user_api=None))
print("in nnU-Net's loader:", "threadpool_limits(" in used)
print(f"threadpool_limits, as there: {anew:.2f} ms; a kept ThreadpoolController: {again:.3f} ms")
if "threadpool_limits(" not in used or anew < 20 * again:
    sys.exit("changed: the behaviour above is another one now")
print("as described")
PY
