"""These need vLLM and DeepSpeed: `make test-backend` runs them on a CPU, `make test-gpu` on a GPU."""

import importlib.util

missing = [name for name in ("vllm", "deepspeed") if importlib.util.find_spec(name) is None]
collect_ignore_glob = ["test_*.py"] if missing else []
