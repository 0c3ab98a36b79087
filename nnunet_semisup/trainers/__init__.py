"""The trainers, one method a file; exactly those of the registry are exported."""

from importlib import import_module

from nnunet_semisup.registry import METHODS

for _method in METHODS:
    globals()[_method.trainer] = getattr(
        import_module(f"nnunet_semisup.trainers.{_method.module}"), _method.trainer
    )

__all__ = [method.trainer for method in METHODS]
