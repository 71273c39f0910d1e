"""These need vLLM and DeepSpeed: `make test-backend` installs them and runs everything in here."""

import importlib.util

missing = [name for name in ("vllm", "deepspeed") if importlib.util.find_spec(name) is None]
collect_ignore_glob = ["test_*.py"] if missing else []
