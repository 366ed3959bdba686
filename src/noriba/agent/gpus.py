"""NVIDIA GPUs of the machine: their names without any library, their use through NVIDIA's (``nvidia-ml-py``)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)
_DRIVER = Path("/proc/driver/nvidia/gpus")


def models(driver: Path = _DRIVER) -> list[str]:
    """Names of the GPUs in the order of their index, as the kernel driver tells them; empty without any."""
    found: list[tuple[int, str]] = []
    for information in sorted(driver.glob("*/information")):
        fields = {}
        for line in information.read_text().splitlines():
            key, _, value = line.partition(":")
            fields[key.strip()] = value.strip()
        minor = fields.get("Device Minor", "")
        found.append((int(minor) if minor.isdigit() else len(found), fields.get("Model", "NVIDIA GPU")))
    return [name for _, name in sorted(found)]


class Gpus:
    """Use of the GPUs with these indices or UUIDs; ``open`` says None where it can not be known."""

    def __init__(self, library: Any, handles: list[Any]) -> None:
        self._library = library
        self._handles = handles

    @classmethod
    def open(cls, visible: list[str]) -> Gpus | None:
        """None without GPUs, without the library or when the driver refuses."""
        if not visible:
            return None
        try:
            import pynvml
        except ImportError:
            _log.info("GPU use is not sampled: install noriba[nvidia]")
            return None
        try:
            pynvml.nvmlInit()
            handles = [
                pynvml.nvmlDeviceGetHandleByIndex(int(name))
                if name.isdigit()
                else pynvml.nvmlDeviceGetHandleByUUID(name.encode())
                for name in visible
            ]
        except pynvml.NVMLError as error:
            _log.warning("GPU use is not sampled: %s", error)
            return None
        return cls(pynvml, handles)

    def use(self) -> tuple[float, int] | None:
        """Mean utilisation in percent and memory in use in bytes, over all GPUs."""
        try:
            rates = [self._library.nvmlDeviceGetUtilizationRates(handle).gpu for handle in self._handles]
            memory = [self._library.nvmlDeviceGetMemoryInfo(handle).used for handle in self._handles]
        except self._library.NVMLError:
            return None
        return sum(rates) / len(rates), sum(memory)
