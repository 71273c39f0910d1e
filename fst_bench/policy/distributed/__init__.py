"""The `vllm-deepspeed` backend: vLLM samples, DeepSpeed trains, on one process or many."""
