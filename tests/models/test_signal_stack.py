"""A signal that comes after OpenVINO is handled, also when the model has been freed in another thread."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import gc, os, signal, threading
from pathlib import Path
import numpy as np
import openvino
from openvino import opset13 as ops
from acclimate.models.backends.sessions import open_session

ids = ops.parameter([-1, 8], np.int64, name="input_ids")
ids.output(0).set_names({"input_ids"})
vectors = ops.matmul(ops.convert(ids, "f32"), ops.constant(np.eye(8, dtype=np.float32)), False, True)
vectors.output(0).set_names({"sentence_embedding"})
openvino.save_model(openvino.Model([vectors], [ids]), "graph.xml")
tokens = np.ones((1, 8), dtype=np.int64)
opened = [open_session("openvino", Path("graph.xml"), threads=1)]
assert opened[0](tokens, tokens).tolist() == tokens.tolist()
elsewhere = threading.Thread(target=lambda: (opened.clear(), gc.collect()))
elsewhere.start()
elsewhere.join()
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_after_a_model_was_freed_in_another_thread(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "handled\n"
