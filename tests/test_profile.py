"""Every Triton kernel compiles for every GPU, none spills, none is worse than the baseline; the command that says so."""

import json

import pytest
from click.testing import CliRunner

pytest.importorskip("triton")
pytest.importorskip("cuxray")

import triton

from alps_fast.cli import main
from alps_fast.cli.profile import BASELINE
from alps_fast.ops import _dispatch
from alps_fast.profile import cuda, nvcc
from alps_fast.profile.cases import CASES
from alps_fast.profile.emulate import compiled, interpreting, recorded, traffic
from alps_fast.profile.static import ARCHITECTURES, baseline_of, cuda_rows, facts, instructions, regressions
from alps_fast.profile.work import GPUS, Work, modelled_us

needs_nvcc = pytest.mark.skipif(nvcc.version() is None, reason="no nvcc on the PATH")
pytestmark = pytest.mark.skipif(interpreting(), reason="interpreted kernels cannot be compiled")


def test_every_op_on_triton_has_a_case():
    assert {case.op for case in CASES} == set(_dispatch.TRITON_OPS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_compiles_ahead_of_time_and_is_no_worse_than_the_baseline(case):
    """sm_80, sm_90 and sm_100 with their facts, gfx942 to its code object."""
    rows = [row for arch in ARCHITECTURES for row in facts(case, arch)]
    assert rows
    if not (case.op == "ridge_langevin" and triton.__version__ < "3.8"):  # with products of 16 terms it spills (docs/gpu.md)
        assert all(row["spill_instructions"] == 0 for row in rows)
    baseline = json.loads(BASELINE.read_text())
    if baseline["triton"] == triton.__version__:
        assert not regressions({case.name: rows}, baseline["cases"])
    with recorded() as launches:
        case.run(case.chains)
    for launch in launches:
        code = compiled(launch, "gfx942")
        assert code.asm["hsaco"] and "contract" not in code.asm["llir"]


@pytest.mark.parametrize("case", [c for c in CASES if c.name.startswith("langevin_pixel/64")], ids=lambda case: case.name)
def test_langevin_pixel_stays_near_its_floor_and_has_no_conflicts(case):
    found = traffic(case._replace(emulated_chains=4))
    assert 1 <= found["over_floor"] <= 1.2 and found["bank_conflicts"] == 0 and found["barriers"] == 0


def test_the_baseline_holds_every_case_and_source_and_nothing_else():
    baseline = json.loads(BASELINE.read_text())
    assert set(baseline["cases"]) == {case.name for case in CASES}
    assert set(baseline["cuda"]) == set(nvcc.ops()) >= {case.op for case in cuda.CASES}
    assert all(row["spill_instructions"] == 0 for group in ("cases", "cuda") for rows in baseline[group].values() for row in rows)


def test_a_source_for_every_op_on_cuda():
    assert {op for op, backend in _dispatch._implementations if backend == "cuda"} | {"loop"} == set(nvcc.ops())


@needs_nvcc
def test_cuda_kernels_are_told_apart():
    rows = cuda_rows(["philox_normal"], ["sm_80"])["philox_normal"]
    assert [(row["kernel"], row["global_access_bytes"], row["threads"], row["shared_bytes"]) for row in rows] == [
        ("philox_normal_kernel<false>", 8, 256, 0), ("philox_normal_kernel<true>", 16, 256, 0)]
    baseline = json.loads(BASELINE.read_text())
    if baseline["nvcc"] == nvcc.version():
        of_arch = [row for row in baseline["cuda"]["philox_normal"] if row["arch"] == "sm_80"]
        assert not regressions({"philox_normal": rows}, {"philox_normal": of_arch})


def test_kernels_are_read_from_ptx():
    head, end = ".extern .shared .align 16 .b8 dynamic[];\n.visible .entry ", "\n.maxntid {}, 1, 1\n{{ {} ret; }}\n"
    ptx = (head + "_ZN4alps4cuda21langevin_pixel_kernelILi2ELb1EEEvPKf(.param .u64 a)" + end.format(256, "mov.u32 %r1, dynamic;")
           + ".visible .entry _ZN4alps4cuda14moments_kernelIdEEvl(.param .u64 a)" + end.format(128, "")
           + ".visible .entry _ZN4alps4cuda9my_kernelEl(.param .u64 a)" + end.format(64, ""))
    assert [kernel[1:] for kernel in nvcc.kernels(ptx)] == [
        ("langevin_pixel_kernel<2, true>", 256, True), ("moments_kernel<double>", 128, False), ("my_kernel", 64, False)]


def test_a_worse_fact_is_named():
    name = "k"
    row = {"kernel": "f", "arch": "sm_80", "registers": 32, "spill_instructions": 0, "shared_bytes": 0,
           "occupancy_percent": 100.0, "global_access_bytes": 16, "tensor_instructions": 4}
    baseline = baseline_of({name: [row]})
    assert not regressions({name: [row]}, baseline)
    assert not regressions({name: [row | {"registers": 30, "occupancy_percent": 100.0}]}, baseline)
    assert regressions({name: [row | {"registers": 40}]}, baseline) == ["k: f for sm_80: registers was 32, is 40"]
    assert len(regressions({name: [row | {"spill_instructions": 2, "global_access_bytes": 4}]}, baseline)) == 2
    assert regressions({name: [row, row]}, baseline) == ["k for sm_80: its launches are not those of the baseline"]
    assert regressions({"new": [row]}, baseline) == ["new for sm_80: its launches are not those of the baseline"]


def test_instructions_are_read_from_sass():
    sass = "\n".join(("        /*0010*/                   LDG.E.128 R4, desc[UR4][R2.64] ;", "   /* 0x000fe200 */",
                      "        /*0020*/              @!P0 STL.64 [R1], R4 ;",
                      "        /*0030*/  @P1 HMMA.1688.F32.TF32 R4, R2, R3, R4 ;"))
    assert instructions(sass) == {"LDG.E.128": 1, "STL.64": 1, "HMMA.1688.F32.TF32": 1}


def test_the_roofline_takes_the_longest():
    a100 = GPUS[0]
    assert modelled_us(Work(2040, 0), a100) == pytest.approx(1e-3)
    assert modelled_us(Work(2040, 39_000_000), a100) == pytest.approx(2)
    assert Work(1, 2, 3, 4) + Work(1, 1, 1, 1) == Work(2, 3, 4, 5)


def test_the_command(tmp_path, monkeypatch):
    arguments = ["profile", "--static", "--arch", "sm_80", "--op", "philox_normal"]
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 0 and "modelled, not measured" in shown.output and "philox_normal_kernel" in shown.output
    found = json.loads(CliRunner().invoke(main, [*arguments, "--emulate", "--json"]).stdout)
    case = found["cases"]["philox_normal/64×64×3"]
    assert case["static"][0]["global_access_bytes"] == 16 and 1 <= case["emulated"]["over_floor"] < 1.1
    assert case["model"]["bytes"] == 64 * 64 * 64 * 3 * 4
    if nvcc.version():
        assert "csrc/cuda/philox_normal.cu" in shown.output and [r["registers"] for r in found["cuda_static"]["philox_normal"]]
        assert 1 <= found["cuda"]["philox_normal/64×64×3"]["emulated"]["over_floor"] < 1.1

    changed = tmp_path / "baseline.json"
    monkeypatch.setattr("alps_fast.cli.profile.BASELINE", changed)
    assert CliRunner().invoke(main, [*arguments, "--update"]).exit_code == 0
    assert CliRunner().invoke(main, [*arguments, "--check"]).exit_code == 0
    written = json.loads(changed.read_text())
    if nvcc.version():
        changed.write_text(json.dumps(written | {"cuda": {"philox_normal": written["cuda"]["philox_normal"][:1]}}))
        worse = CliRunner().invoke(main, [*arguments, "--check"])
        assert worse.exit_code == 1 and "philox_normal for sm_80: its launches are not those of the baseline" in worse.output
        changed.write_text(json.dumps(written | {"nvcc": "0.0"}))
        other = CliRunner().invoke(main, [*arguments, "--check"])
        assert other.exit_code == 0 and "csrc/cuda not checked: the baseline is of nvcc 0.0" in other.output
    written["cases"]["philox_normal/64×64×3"][0]["registers"] = 1
    changed.write_text(json.dumps(written))
    worse = CliRunner().invoke(main, [*arguments, "--check"])
    assert worse.exit_code == 1 and "registers was 1, is" in worse.output
    changed.write_text(json.dumps(written | {"triton": "0.0"}))
    other = CliRunner().invoke(main, [*arguments, "--check"])
    assert other.exit_code == 3 and "Not checked: the baseline is of triton 0.0" in other.output
    assert CliRunner().invoke(main, ["profile", "--op", "nothing"]).exit_code == 2
