"""The process: it listens at once, loads beside that, follows what changes on disk, and stops in good order."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.types import ASGIApp

from acclimate.configs import RunConfig
from acclimate.configs.serve import ServeConfig
from acclimate.errors import AcclimateError, UsageError
from acclimate.formats.chat import ChatClient
from acclimate.progress import say
from acclimate.serve.app import make_app
from acclimate.serve.connections import Connection
from acclimate.serve.following import follow
from acclimate.serve.logs import log, log_to_stderr
from acclimate.serve.site import Site
from acclimate.serve.writer import RETRIES, Writer

if TYPE_CHECKING:
    from acclimate.serve.opening import Service

BACKLOG = 1024
KEEP_ALIVE_S = 60
"""More than the pools of clients keep an idle connection, so that they close it, and not we while they send."""
WARMING_UP_S = 0.02
SWITCH_S = 0.0001
"""The model's thread asks for the interpreter after every operation, some hundred times a batch, and waits this long
while requests are being read. With Python's 5 ms, 64 clients had some 5 % fewer answers a second."""
MB = 1_000_000


class _Server(uvicorn.Server):
    """uvicorn's server, for which a signal to stop is no failure."""

    def __init__(self, config: uvicorn.Config, site: Site) -> None:
        super().__init__(config)
        self.site = site

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  (of uvicorn's interface)
        """Stop; a second signal does not wait."""
        self.force_exit = self.should_exit
        self.stop()

    def stop(self) -> None:
        """Refuse what comes, and finish what is under way."""
        self.should_exit = self.site.is_draining = True


class Process:
    """One service: it listens from the moment it is made, and answers `/livez` as soon as it runs.

    Attributes:
        site: what its routes share.
        address: such as http://127.0.0.1:8000.

    Args:
        names: see `opening.open_service`.
        config: of the models, and `serve`.
        reranker: see `opening.open_service`.

    Raises:
        UsageError: the address cannot be had, or that of the language model is none.
        DataError: the file of keys cannot be used.
    """

    def __init__(self, names: Sequence[str], config: RunConfig, reranker: str | None = None) -> None:
        self.names, self.config, self.reranker = names, config, reranker
        settings = config.serve
        self.site = Site.new(settings)
        self.site.writer = _writer(config)
        self._listening = _listening(settings)
        host, port = self._listening.getsockname()[:2]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._server = _Server(_uvicorn(make_app(self.site), settings), self.site)

    def run(self) -> None:
        """Serve until `stop`, or a signal.

        Raises:
            AcclimateError: nothing could be loaded; why.
        """
        sys.setswitchinterval(SWITCH_S)
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(self._serve())
        finally:
            self._listening.close()
        if self.site.failure is not None:
            raise self.site.failure

    def stop(self) -> None:
        """Let `run` end as a signal does: what comes is refused, what is under way is finished. Any thread may call."""
        self._server.stop()

    async def _serve(self) -> None:
        beside = [asyncio.create_task(self._load()), asyncio.create_task(follow(self.site))]
        if threading.current_thread() is threading.main_thread():
            with contextlib.suppress(NotImplementedError):  # where there is no such signal
                asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _reload_keys, self.site)
        try:
            await self._server.serve(sockets=[self._listening])
        finally:
            self.site.is_draining = True
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await _put_away(self.site)

    async def _load(self) -> None:
        """Load the models in a thread, start the engine, and say when requests are answered."""
        site = self.site
        try:
            service = await asyncio.to_thread(self._opened)
            from acclimate.serve.answers import space_of
            from acclimate.serve.feedback import ServedFeedback
            from acclimate.serve.indexes import ServedIndex
            from acclimate.serve.pictures import open_pictures

            for run in service.runs:
                pictures = await asyncio.to_thread(open_pictures, run.folder, run.model, self.config.device)
                if pictures is not None:
                    site.pictures[run.name] = pictures
                index = site.indexes[run.name] = ServedIndex(run, site.metrics)
                model = service.registry.pin(run.model).served
                await index.follow(space_of(model, run.task))  # opened now, not by the first search
                if site.settings.feedback and not site.settings.read_only:
                    site.feedback[run.name] = ServedFeedback(run.feedback, index, site.settings.swaps, site.metrics)
            service.engine.start()
            site.loaded = service
            while not service.engine.ready:
                if not service.engine.alive:
                    raise AcclimateError("the thread that runs the models has stopped while it warmed up")
                await asyncio.sleep(WARMING_UP_S)
        except Exception as error:
            site.failure = error
            self._server.stop()
            return
        models = {model.name: model.sha256 or model.base_sha256 for model in service.registry.models()}
        log("ready", models=models, indexes=list(site.indexes), reranker=service.reranker_id)

    def _opened(self) -> Service:
        from acclimate.serve.opening import open_service
        from acclimate.serve.scheduler import Limits

        settings = self.config.serve
        return open_service(
            self.names,
            self.config,
            reranker=self.reranker,
            limits=Limits(
                request_rows=settings.max_inputs,
                request_tokens=settings.max_request_tokens,
                batch_tokens=settings.batch_tokens,
            ),
            cache_bytes=int(settings.cache_mb * MB),
            adapter_root=None if settings.adapter_root is None else Path(settings.adapter_root),
            adapter_bytes=int(settings.max_adapters_mb * MB),
            on_batch=self.site.metrics.batch,
        )


def serve(names: Sequence[str], config: RunConfig, reranker: str | None = None) -> None:
    """Serve until a signal says to stop; arguments and errors are those of `Process` and its `run`."""
    process = Process(names, config, reranker)
    log_to_stderr()
    say(f"acclimate serves {process.address}; the models are being loaded")
    if config.serve.public and config.serve.keys is None:
        say("warning: --public without --keys: whoever reaches this address may read and change the documents")
    process.run()


async def _put_away(site: Site) -> None:
    """Finish what is under way, within the deadline, and close the indexes."""
    if site.loaded is not None:
        whole = await site.loaded.engine.drain(site.settings.drain_s)
        log("drained", finished=whole)
    for feedback in site.feedback.values():  # before the indexes, which they ask
        await asyncio.to_thread(feedback.close)
    if site.writer is not None:
        site.writer.close()
    for pictures in site.pictures.values():
        await asyncio.to_thread(pictures.close)
    for index in site.indexes.values():
        await asyncio.to_thread(index.close)


def _writer(config: RunConfig) -> Writer | None:
    """The language model, if one is named."""
    endpoint, answer = config.endpoint, config.answer
    if endpoint.llm is None or endpoint.llm_model is None:
        return None
    client = ChatClient(
        endpoint.llm,
        endpoint.llm_model,
        timeout_s=config.serve.answer_deadline_s,
        retries=RETRIES,
        requests_per_minute=endpoint.llm_requests_per_minute,
    )
    return Writer(client, endpoint.llm_parallel, answer.context_tokens, answer.answer_tokens)


def _reload_keys(site: Site) -> None:
    try:
        site.keys.reload()
        log("keys reloaded")
    except AcclimateError as error:
        site.metrics.failures.labels("keys").inc()
        log("keys not reloaded", level=40, reason=str(error))


def _listening(settings: ServeConfig) -> socket.socket:
    """The socket, so that an address which cannot be had is told before anything is loaded."""
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise UsageError(
            f"{settings.host}:{settings.port} cannot be listened on ({error.strerror or error})",
            fix="Give another --host or --port; 0 takes a free port.",
        ) from None


def _uvicorn(app: ASGIApp, settings: ServeConfig) -> uvicorn.Config:
    made: Any = functools.partial(Connection, idle_s=settings.idle_s)  # it is called as a class would be
    return uvicorn.Config(
        app,
        http=made,
        ws="none",
        lifespan="on",  # FastAPI sets up the sending of traces there
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.drain_s)),
    )


def _loop_factory() -> Any:
    """uvloop's, where it is installed."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop
