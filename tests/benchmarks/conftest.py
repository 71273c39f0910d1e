"""The machine in a committed benchmark result: what matters for speed, no host name."""

from typing import Any


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    cpu = machine_info["cpu"]
    kept = {"cpu": cpu.get("brand_raw"), "cores": cpu.get("count"), "python": machine_info["python_version"]}
    machine_info.clear()
    machine_info.update(kept)
