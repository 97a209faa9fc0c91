"""Which device a run uses, in the words of `--gpu`."""

from __future__ import annotations

import ctypes

import torch

from tossctr.errors import UserError

CPU_MICRO_BATCH = 2**13  # events: more only falls out of the cache
GPU_MICRO_BATCH = 2**17  # fills one, and takes about 1 GB at FESeq_full's width
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def resolve_device(gpu: int | None) -> torch.device:
    """`--gpu N` as a device: None takes GPU 0 where there is one, -1 is the CPU.

    Raises:
        UserError: that GPU is not there.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpu is None:
        return torch.device("cuda", 0) if count else torch.device("cpu")
    if gpu < 0:
        return torch.device("cpu")
    if gpu >= count:
        there = f"{count} GPUs are" if count > 1 else "one GPU is" if count else "no GPU is"
        raise UserError(
            f"GPU {gpu} is not there: {there} visible to torch", remedy="use --gpu -1 for the CPU"
        )
    return torch.device("cuda", gpu)


def device_of_process(gpu: int | None, local_rank: int) -> torch.device:
    """`--gpu` for one of several processes: each on this machine takes the GPU of its own number;
    -1 is the CPU.

    Raises:
        UserError: a GPU is named, or there are fewer GPUs than processes.
    """
    if gpu is None:
        return resolve_device(local_rank if torch.cuda.is_available() else -1)
    if gpu >= 0:
        raise UserError(
            "several processes cannot share a GPU",
            key="--gpu",
            value=gpu,
            remedy="leave it out, and each takes one; CUDA_VISIBLE_DEVICES says which there are",
        )
    return resolve_device(gpu)


def default_micro_batch_events(device: torch.device) -> int:
    """Events to be executed at once where neither the config nor a count of memory says it."""
    return CPU_MICRO_BATCH if device.type == "cpu" else GPU_MICRO_BATCH


def reuse_memory() -> None:
    """Keep what a part of a batch has freed for the next one, where the C library is glibc.

    By itself it gives large blocks back and fetches them again, and the first touch of fresh pages
    took a tenth of a training step on a CPU. Blocks beyond 32 MB are given back all the same.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(M_TRIM_THRESHOLD, 2**30)
        set_option(M_MMAP_THRESHOLD, 2**25)
