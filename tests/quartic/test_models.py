"""Models and arrays as a user names them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from isa.container import MAGIC
from isa.errors import InputError
from quartic.models import (
    count_samples,
    load_arrays,
    load_model,
    load_program,
    load_with_samples,
    quantized_graph,
    save_arrays,
)

BUILD = "from torch import nn\ndef build():\n    return nn.Linear(3, 2)\ndef number():\n    return 3\n"


def test_model_from_a_function_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(BUILD)
    model = load_model(f"{tmp_path}/net.py:build")
    assert isinstance(model, torch.nn.Linear)
    assert not model.training


def test_module_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("from torch import nn\nnet = nn.Linear(3, 2)\n")
    assert not load_model(f"{tmp_path}/net.py:net").training


def test_model_from_a_function_in_a_package() -> None:
    assert type(load_model("benchmarks.zoo.toys:Plain")).__name__ == "Plain"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("net.py:absent", "has no function 'absent' that builds a model"),
        ("net.py:number", r"returned int; it must return a torch\.nn\.Module"),
        ("net.py", "names no model: give model.pt2, file.py:function or package.module:function"),
        ("gone.py:build", r"gone\.py: no such file; expected a Python file that defines the model"),
        ("broken.py:build", r"broken\.py:1: .*syntax"),
    ],
)
def test_source_that_names_no_model(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "net.py").write_text(BUILD)
    (tmp_path / "broken.py").write_text("def build(:\n")
    with pytest.raises(InputError, match=message):
        load_model(f"{tmp_path}/{source}")


def test_package_that_cannot_be_imported() -> None:
    with pytest.raises(InputError, match=r"module 'no_such.thing' cannot be imported"):
        load_model("no_such.thing:build")


@pytest.mark.parametrize("data", [b"", b"8 bytes!", b"PK\x03\x04" + bytes(100)])
def test_damaged_program_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.pt2").write_bytes(data)
    with pytest.raises(InputError, match=r"m\.pt2: cannot be read as a torch\.export program"):
        load_program(tmp_path / "m.pt2")


def test_other_kinds_of_files_are_told(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(4, 4).state_dict(), tmp_path / "weights.pt2")
    with pytest.raises(InputError, match=r"weights\.pt2: .* \(torch\.save wrote it: build the model in a function"):
        load_program(tmp_path / "weights.pt2")
    (tmp_path / "m.qbin").write_bytes(MAGIC + bytes(100))
    with pytest.raises(InputError, match=r"m\.qbin: .* \(it is a compiled binary: `quartic run` and"):
        load_program(tmp_path / "m.qbin")


def test_a_weight_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    model = torch.nn.Linear(64, 64).eval()
    torch.export.save(torch.export.export(model, (torch.zeros(1, 64),)), path := tmp_path / "m.pt2")
    data, weight = bytearray(path.read_bytes()), model.weight.detach().numpy().tobytes()
    data[data.index(weight) + 100] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"m\.pt2: .* \(data/weights/\w+ is damaged: its checksum does not match"):
        load_program(path)


def test_npz_gives_its_arrays_in_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", b=np.zeros(2), a=np.ones(3))
    assert [tuple(tensor.shape) for tensor in load_arrays(tmp_path / "x.npz")] == [(2,), (3,)]


def test_inputs_of_different_counts_are_refused() -> None:
    with pytest.raises(InputError, match=r"x\.npz: its arrays hold 4, 3 samples; give as many for every input"):
        count_samples([torch.zeros(4, 2), torch.zeros(3, 2)], Path("x.npz"))
    assert count_samples([torch.zeros(4, 2), torch.zeros(4)], Path("x.npz")) == 4


@pytest.mark.parametrize("data", [b"", b"hello, world"])
def test_file_that_is_no_array_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(InputError, match=r"x\.npy: not a \.npy or \.npz file; write it with numpy\.save"):
        load_arrays(tmp_path / "x.npy")


def test_a_scalar_and_a_foreign_byte_order_load_as_they_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.float32(3), b=np.array([1, 2], ">f4"))
    scalar, pair = load_arrays(tmp_path / "x.npz")
    assert scalar.shape == ()
    assert pair.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def build():\n    return 1 / 0", r"building the model failed with ZeroDivisionError: .* \(.*net\.py:2\)"),
        ("def build():\n    raise SystemExit(3)", r"building the model failed with SystemExit: 3 \(.*net\.py:2\)"),
        ("exit()", r"importing it failed with SystemExit: .*"),
        ("import no_such_thing", r"importing it failed with ModuleNotFoundError: .* \(.*net\.py:1\)"),
    ],
)
def test_failure_of_the_users_code_is_named_with_its_line(tmp_path: Path, body: str, message: str) -> None:
    (tmp_path / "net.py").write_text(body)
    with pytest.raises(InputError, match=message):
        load_model(f"{tmp_path / 'net.py'}:build")


def test_damaged_program_logs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "m.pt2").write_bytes(b"no zip")
    with pytest.raises(InputError):
        load_program(tmp_path / "m.pt2")
    assert not [record for record in caplog.records if record.name == "torch.export"]


@pytest.mark.parametrize("data", [b"\x93NUMPY", b"PK\x03\x04" + bytes(50)])
def test_damaged_array_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(InputError, match=r"x\.npy: (not a readable|damaged)"):
        load_arrays(tmp_path / "x.npy")


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "x.npy").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="not a readable"):
        load_arrays(tmp_path / "x.npy")


def test_outputs_round_trip(tmp_path: Path) -> None:
    values = (torch.arange(3), torch.ones(2, 2))
    save_arrays(tmp_path / "y.npz", ["first", "second"], values)
    assert all(map(torch.equal, load_arrays(tmp_path / "y.npz"), values))


def test_two_outputs_do_not_fit_one_npy(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a \.npy holds one array and there are 2 outputs; name it \.npz"):
        save_arrays(tmp_path / "y.npy", ["a", "b"], (torch.ones(1), torch.ones(1)))


def test_float_module_is_not_a_quantized_graph() -> None:
    with pytest.raises(InputError, match=r"takes a quantized torch\.fx\.GraphModule, not Linear; quantize first"):
        quantized_graph(torch.nn.Linear(2, 2))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("names", "first"), [(("b", "a"), 2), (("a", "b"), 1), (("c", "b", "a"), 2), (("x", "y"), 1), ((), 1)]
)
def test_arrays_have_the_names_of_inputs_or_their_order(tmp_path: Path, names: tuple[str, ...], first: int) -> None:
    np.savez(tmp_path / "two.npz", a=np.array([1]), b=np.array([2]))
    assert load_arrays(tmp_path / "two.npz", names)[0].item() == first


def test_arrays_of_which_some_have_the_names_of_inputs(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=np.array([1]), b=np.array([2]))
    message = r"two\.npz: 'b': no input of the model \(a, input_1\); name all arrays so, or none"
    with pytest.raises(InputError, match=message):
        load_arrays(tmp_path / "two.npz", ["a", "input_1"])


def test_samples_have_the_names_of_the_models_inputs(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def forward(self, b, a):\n        return a - b\n"
    )
    np.savez(tmp_path / "two.npz", a=np.array([1]), b=np.array([2]))
    model, arrays = load_with_samples(f"{tmp_path}/net.py:Net", tmp_path / "two.npz")
    assert model(*arrays).item() == -1
