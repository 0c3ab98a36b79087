#!/usr/bin/env bash
# Background workers of batchgenerators seed numpy, not torch: all of them draw the same numbers.
#
# NonDetMultiThreadedAugmenter without seeds (nnU-Net passes none) forks its workers, and each calls
# np.random.seed(None); torch's generator keeps the state that it had at the fork. Transforms that
# draw from torch, as those of batchgeneratorsv2 do, then make the same choices in every worker: a draw
# comes up to once a worker, twelve times with nnU-Net's default.
#
# Seen with batchgenerators 0.25.5, torch 2.13.0, start method "fork" (the default before Python 3.14):
# 200 batches of 4 workers have 200 different draws of numpy and 50 to 70 of torch.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check batchgenerators==0.25.5 torch==2.13.0
cat > draw.py <<'PY'
import multiprocessing
import sys
import time
from collections import Counter

import numpy as np
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import (
    NonDetMultiThreadedAugmenter,
)

WORKERS, BATCHES = 4, 200


class Draws:
    """A loader whose batch is one draw of numpy and one of torch, and takes 20 ms as if it read."""

    def set_thread_id(self, thread_id):
        pass

    def __iter__(self):
        return self

    def __next__(self):
        time.sleep(0.02)
        return {"numpy": float(np.random.uniform()), "torch": float(torch.rand(()))}


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    loader = NonDetMultiThreadedAugmenter(Draws(), None, WORKERS, num_cached=WORKERS, seeds=None)
    batches = [next(loader) for _ in range(BATCHES)]
    loader._finish()
    distinct = {name: len({b[name] for b in batches}) for name in ("numpy", "torch")}
    most = Counter(b["torch"] for b in batches).most_common(1)[0][1]
    print(f"{BATCHES} batches of {WORKERS} workers: {distinct['numpy']} different draws of numpy,")
    print(f"{distinct['torch']} of torch, the most frequent {most} times")
    if distinct["numpy"] != BATCHES or distinct["torch"] > BATCHES // 2 or most > WORKERS:
        sys.exit("changed: the behaviour above is another one now")
    print("as described")
PY
env/bin/python draw.py
