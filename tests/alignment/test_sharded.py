"""A conditioned model in shards (torch's FSDP2) on two CPU processes: gradients and adapter of the whole model."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import same_tensors
from tiny_models import MIXED, padded, randomise, texts, tiny_model

from hyperdpo.alignment.training_config import HyperDPOConfig
from hyperdpo.errors import InputError
from hyperdpo.files import read_tensors, write_tensors


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """Of a loss in which each row has weights of its own."""
    from torch.distributed.tensor import DTensor

    ids, mask = padded(texts(), "right")
    model.train()
    completion = mask.clone()
    completion[:, :2] = 0
    logps = model(ids, mask, MIXED, completion_mask=completion).logps
    (logps * torch.tensor([1.0, -2.0, 0.5])).sum().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return {name: g.full_tensor() if isinstance(g, DTensor) else g for name, g in found.items()}


def work(rank: int, place: str) -> None:
    """One of the two processes; the first one writes what it found."""
    from torch import distributed
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{place}/store", rank=rank, world_size=2)
    model = tiny_model()
    randomise(model)
    whole = sum(p.numel() for p in model.parameters())
    for layer in model.base.model.layers:
        fully_shard(layer)
    fully_shard(model)
    assert sum(p.to_local().numel() for p in model.parameters()) < 0.6 * whole, "a process holds about half"
    model.gradient_checkpointing_enable()
    found = gradients(model)
    state = {name: tensor.full_tensor() for name, tensor in model.adapter_state().items()}
    if rank == 0:
        write_tensors(Path(place) / "gradients.safetensors", found)
        write_tensors(Path(place) / "adapter.safetensors", state)
    distributed.barrier()
    distributed.destroy_process_group()
    os._exit(0)  # a thread of gloo that has not ended yet would abort the process at its end, once in a while


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gloo through a file")
def test_two_processes_have_the_gradients_and_the_adapter_of_one(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(rank, str(tmp_path))) for rank in range(2)]
    for one in processes:
        one.start()
    for one in processes:
        one.join(120)
    assert [one.exitcode for one in processes] == [0, 0]
    model = tiny_model()
    randomise(model)
    expected = gradients(model)
    found = read_tensors(tmp_path / "gradients.safetensors")[0]
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7)
        assert float(gradient.abs().max()) > 0, name
    assert same_tensors(read_tensors(tmp_path / "adapter.safetensors")[0], model.adapter_state())


def test_the_trainer_refuses_shards_that_it_could_not_save(tmp_path):
    with pytest.raises(InputError, match=r"fsdp is True.*docs/memory.md"):
        HyperDPOConfig(str(tmp_path), fsdp=True)
