"""The device of a run, chosen by `--gpu`."""

from __future__ import annotations

import ctypes

import torch

from tossctr.errors import UserError

CPU_MICRO_BATCH = 2**13  # events: larger ones do not fit the cache
GPU_MICRO_BATCH = 2**17  # events: enough to use all of a GPU, about 1 GB at FESeq_full's width
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def resolve_device(gpu: int | None) -> torch.device:
    """The device of `--gpu N`: None is GPU 0, or the CPU without a GPU; -1 is the CPU.

    Raises:
        UserError: there is no such GPU.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpu is None:
        return torch.device("cuda", 0) if count else torch.device("cpu")
    if gpu < 0:
        return torch.device("cpu")
    if gpu >= count:
        found = f"{count} GPUs are" if count > 1 else "one GPU is" if count else "no GPU is"
        raise UserError(
            f"GPU {gpu} is not available: {found} visible to torch",
            remedy="use --gpu -1 for the CPU",
        )
    return torch.device("cuda", gpu)


def device_of_process(gpu: int | None, local_rank: int) -> torch.device:
    """The device of one of several processes: GPU number `local_rank`, or the CPU if `gpu` is -1.

    Raises:
        UserError: `gpu` names a GPU, or there are fewer GPUs than processes.
    """
    if gpu is None:
        return resolve_device(local_rank if torch.cuda.is_available() else -1)
    if gpu >= 0:
        raise UserError(
            "several processes cannot share a GPU",
            key="--gpu",
            value=gpu,
            remedy="leave it out, so that each takes one; CUDA_VISIBLE_DEVICES limits which",
        )
    return resolve_device(gpu)


def default_micro_batch_events(device: torch.device) -> int:
    """Most events of a micro-batch if neither the config nor measured memory sets it."""
    return CPU_MICRO_BATCH if device.type == "cpu" else GPU_MICRO_BATCH


def keep_freed_memory() -> None:
    """Let glibc keep memory that a micro-batch frees; no effect with other C libraries.

    By default glibc returns large blocks to the system, and page faults on new ones took a tenth of
    a training step on a CPU. Blocks beyond 32 MB are still returned.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(M_TRIM_THRESHOLD, 2**30)
        set_option(M_MMAP_THRESHOLD, 2**25)
