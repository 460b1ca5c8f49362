"""FSDP: weights, gradients and optimizer state shared out over the processes of a run.

Accelerate shards (torch's `fully_shard`); here is what goes in and out whole. Checkpoints are those
of a run without FSDP, so that any number of processes goes on from them, with it or without.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import TrainingArguments

from captionkit.errors import ConfigError

ARGUMENTS: dict[str, Any] = {"fsdp": "full_shard auto_wrap", "fsdp_config": {"version": 2}}


def switch_on(accelerator: Accelerator, args: TrainingArguments) -> None:
    """Have Accelerate shard on CPUs too. It does so on GPUs alone, and needs none for it."""
    accelerator.state.distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(**args.fsdp_plugin_args)


def gather_by_layer(args: TrainingArguments, model: nn.Module) -> None:
    """Have the weights gathered for a layer at a time: what lies in lists of equal modules."""
    plugin = getattr(args, "fsdp_plugin_args", None)
    if plugin is None:
        raise ConfigError("sharded=True needs transformers 5. Upgrade: pip install -U transformers")
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    layers = {type(layer).__name__ for one in lists for layer in one}
    # of outputs that are views, which would be in danger if they were changed in place
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    plugin["transformer_cls_names_to_wrap"] = ",".join(sorted(layers))


def copy_weights(sharded: nn.Module, whole: nn.Module) -> None:
    """Bring a model's shares into a whole copy of it. All processes call it."""
    into = dict(whole.named_parameters())
    for name, parameter in sharded.named_parameters():
        into[name].data.copy_(_whole(parameter.data))


def load_weights(sharded: nn.Module, whole: nn.Module) -> None:
    """The reverse: each process takes its shares."""
    given = dict(whole.named_parameters())
    for name, parameter in sharded.named_parameters():
        parameter.data.copy_(_shared(given[name].data, parameter))


def whole_state(optimizer: Any) -> dict[str, Any]:
    """An optimizer's `state_dict` with whole tensors, on the CPU. All processes call it."""
    state = optimizer.state_dict()
    entries = {
        number: {key: _whole(value) for key, value in entry.items()}
        for number, entry in state["state"].items()
    }
    return {**state, "state": entries}


def load_state(optimizer: Any, path: Path) -> None:
    """Take up the state in a file, each process its shares."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    entries = {
        number: {
            key: _shared(value, parameters[number])
            if isinstance(value, torch.Tensor) and value.shape == parameters[number].shape
            else value
            for key, value in entry.items()
        }
        for number, entry in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": entries})


def _whole(value: Any) -> Any:
    if isinstance(value, DTensor):
        value = value.full_tensor()
    return value.detach().cpu() if isinstance(value, torch.Tensor) else value


def _shared(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if not isinstance(like, DTensor):
        return value
    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements)
