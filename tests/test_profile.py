"""What `alps-fast profile` says of GPU kernels; `make profile` holds every one of them against the baseline."""

import importlib.util
import json
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

pytest.importorskip("triton")
pytest.importorskip("cuxray")

import triton

from alps_fast.bench import roofline
from alps_fast.cli import main
from alps_fast.ops import _dispatch
from alps_fast.profile.cases import CASES
from alps_fast.profile.work import ARCHITECTURES, GPUS, Work, modelled_us
from lab import cuda, host, nvcc
from lab.command import BASELINE
from lab.emulate import compiled, interpreting, recorded, traffic
from lab.report import baseline_of, counts_of, model, more_work, regressions
from lab.static import cuda_facts, facts, function_facts, instructions

needs_nvcc = pytest.mark.skipif(nvcc.version() is None, reason="no nvcc on the PATH")
pytestmark = pytest.mark.skipif(interpreting(), reason="interpreted kernels cannot be compiled")


def ops_on(backend):
    return {op for op, of in _dispatch._implementations if of == backend}


def test_every_op_with_a_kernel_has_a_case_and_a_point_of_the_roofline():
    assert {case.op for case in CASES} == set(_dispatch.TRITON_OPS)
    assert {case.op for case in cuda.CASES} == ops_on("cuda") - {"ridge_langevin"}  # which launches the kernels of two others
    assert {case.op for case in roofline.gpu_cases()} == set(_dispatch.TRITON_OPS) | ops_on("cuda")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_compiles_ahead_of_time(case):
    """gfx942 to its code object; sm_80, sm_90 and sm_100 where `make profile` does not, which compares them with the baseline."""
    if json.loads(BASELINE.read_text())["triton"] != triton.__version__:
        rows = [row for arch in ARCHITECTURES for row in facts(case, arch)]
        assert rows
        if not (case.op == "ridge_langevin" and triton.__version__ < "3.8"):  # with products of 16 terms it spills (docs/gpu.md)
            assert all(row["spill_instructions"] == 0 for row in rows)
    with recorded() as launches:
        case.run(case.chains)
    assert launches
    for launch in launches:
        code = compiled(launch, "gfx942")
        assert code.asm["hsaco"] and "contract" not in code.asm["llir"]


def test_langevin_pixel_asks_for_little_more_than_its_floor_and_has_no_conflicts():
    counts = json.loads(BASELINE.read_text())["counts"]["triton"]
    for case in (case for case in CASES if case.name.startswith("langevin_pixel/64")):
        found, floor = counts[case.name], case.work(case.emulated_chains).bytes
        assert 1 <= 32 * found["sectors"] / floor <= 1.2 and found["bank_conflicts"] == 0


BEYOND = {  # what must go through memory between launches, or lies there in a launch and is the L2 cache's; docs/gpu.md
    "triton": {"ridge_langevin": 1.48, "langevin_sense": 2, "conv_grad": 3.2},
    "cuda": {"langevin_fourier/1×128×128/in tiles": 2.36, "langevin_sense_cg": 13.9, "conv_grad": 4.63, "ridge_grad": 1.87},
}


@pytest.mark.parametrize("of, cases", [("triton", CASES), ("cuda", cuda.CASES)])
def test_distinct_sectors_are_within_a_fifth_of_the_floor(of, cases):
    """As `make profile` counts them: what DRAM moves at least, against image read and written once, operator constants once."""
    counts, over = json.loads(BASELINE.read_text())["counts"][of], {}
    for case in cases:
        floor = case.emulated.work(case.emulated.emulated_chains).bytes
        over[case.name] = 32 * counts[case.name]["distinct_sectors"] / floor
        assert 1 <= over[case.name] <= BEYOND[of].get(case.name, BEYOND[of].get(case.op, 1.2))
    assert all(max(ratio for case, ratio in over.items() if case.startswith(name)) > 1.2 for name in BEYOND[of])  # not in vain


def test_the_baseline_holds_every_case_and_source_and_nothing_else():
    baseline = json.loads(BASELINE.read_text())
    assert set(baseline["cases"]) == set(baseline["counts"]["triton"]) == {case.name for case in CASES}
    assert set(baseline["cuda"]) == set(nvcc.ops())
    assert set(baseline["counts"]["cuda"]) == {case.name for case in cuda.CASES}
    assert all(row["spill_instructions"] == 0 for group in ("cases", "cuda") for rows in baseline[group].values() for row in rows)


def test_a_source_for_every_op_on_cuda():
    assert ops_on("cuda") | {"loop"} == set(nvcc.ops())


@needs_nvcc
def test_cuda_kernels_are_told_apart():
    rows = cuda_facts("philox_normal", "sm_80")
    assert [[row[key] for key in ("kernel", "global_load_bytes", "global_store_bytes", "threads", "shared_bytes", "case")]
            for row in rows] == [["philox_normal_kernel<false>", 16, 4, 256, 0, None],
                                 ["philox_normal_kernel<true>", 16, 16, 256, 0, "philox_normal/64×64×3"]]
    assert cuda_facts("ridge_langevin", "sm_80") == []  # whose host launches others'
    baseline = json.loads(BASELINE.read_text())
    if baseline["nvcc"] == nvcc.version():
        of_arch = [row for row in baseline["cuda"]["philox_normal"] if row["arch"] == "sm_80"]
        assert not regressions({"philox_normal": rows}, {"philox_normal": of_arch})


@needs_nvcc
def test_shared_memory_is_what_a_case_asks_for():
    asked = cuda.asked("langevin_fourier")
    assert {kernel: (case, launch.threads, launch.shared) for kernel, (case, launch) in asked.items()} == {
        "langevin_fourier_whole": ("langevin_fourier/1×120×120/an image a block", 704, 8 * 120 * 127 + 2 * 1200),
        "langevin_fourier_rows<128>": ("langevin_fourier/1×128×128/in tiles", 64, 8 * 8 * 152),
        "langevin_fourier_columns<128>": ("langevin_fourier/1×128×128/in tiles", 128, 8 * 16 * 16 * 9),
        "langevin_fourier_back<128>": ("langevin_fourier/1×128×128/in tiles", 64, 8 * 8 * 152)}


def test_static_and_dynamic_shared_memory_add_up():
    """On sm_90 the compiler counts a KB that is not the kernel's."""
    usage = "REG:10 STACK:0 SHARED:{} LOCAL:0 CONSTANT[0]:536 TEXTURE:0 SURFACE:0 SAMPLER:0"
    rows = [function_facts(usage.format(shared), "", arch, 128, 50_000) for arch, shared in
            (("sm_80", 20_000), ("sm_90", 21_024), ("sm_90", 0))]
    assert [row["shared_bytes"] for row in rows] == [70_000, 70_000, 50_000]
    assert [row["occupancy_percent"] for row in rows] == [12.5, 18.8, 25]


@needs_nvcc
@pytest.mark.filterwarnings("ignore:conjugate gradients")
@pytest.mark.parametrize("case", [case for case in cuda.CASES if case.arguments], ids=lambda case: case.name)
def test_what_is_timed_on_a_gpu_is_what_is_run_as_ptx(case):
    """The op called with the case's arguments, here on the CPU, and the case's own launches."""
    small = case.emulated._replace(chains=1)
    want, (got, _) = roofline._on_device(small, torch.device("cpu"))(), small.run(1)
    assert all((g - w).norm() <= 1e-5 * w.norm() for g, w in zip(got, want, strict=True))


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
           "occupancy_percent": 100.0, "global_load_bytes": 16, "global_store_bytes": 16, "tensor_instructions": 4}
    baseline = baseline_of({name: [row]})
    assert not regressions({name: [row]}, baseline)
    assert not regressions({name: [row | {"registers": 30, "occupancy_percent": 100.0}]}, baseline)
    assert regressions({name: [row | {"registers": 40}]}, baseline) == ["k: f for sm_80: registers was 32, is 40"]
    assert len(regressions({name: [row | {"spill_instructions": 2, "global_store_bytes": 4}]}, baseline)) == 2
    assert regressions({name: [row, row]}, baseline) == ["k for sm_80: its launches are not those of the baseline"]
    assert regressions({"new": [row]}, baseline) == ["new for sm_80: its launches are not those of the baseline"]


def test_more_work_in_a_step_is_named():
    """A kernel that is launched twice, where the baseline has it once."""
    case = CASES[1]
    twice = case._replace(run=lambda chains: (case.run(chains), case.run(chains)))
    once, more = (counts_of({"cases": {case.name: {"model": model(case), "emulated": traffic(c)}}, "cuda": {}})[0]
                  for c in (case, twice))
    assert not more_work(once, once) and not more_work(once, more)
    was = once[case.name]
    assert more_work(more, once) == [f"{case.name}: {key} of a step was {was[key]}, is {2 * was[key]}"
                                     for key in ("sectors", "distinct_sectors", "instructions")]
    fewer_bytes = {case.name: was | {"least_bytes": was["least_bytes"] - 1}}
    assert more_work(once, fewer_bytes) == [
        f"{case.name}: least_bytes of a step was {was['least_bytes'] - 1}, is {was['least_bytes']}"]
    missing = [f"{case.name}: what is run as PTX is not what the baseline has"]
    assert more_work(once, {}) == more_work(once, {case.name: was | {"chains": 1}}) == missing


def test_instructions_are_read_from_sass():
    sass = "\n".join(("        /*0010*/                   LDG.E.128 R4, desc[UR4][R2.64] ;", "   /* 0x000fe200 */",
                      "        /*0020*/              @!P0 STL.64 [R1], R4 ;",
                      "        /*0030*/  @P1 HMMA.1688.F32.TF32 R4, R2, R3, R4 ;"))
    assert instructions(sass) == {"LDG.E.128": 1, "STL.64": 1, "HMMA.1688.F32.TF32": 1}


def test_the_roofline_takes_the_longest():
    a100 = GPUS[0]
    assert modelled_us(Work(2040, 0), a100) == pytest.approx(1e-3)
    assert modelled_us(Work(2040, 39_000_000), a100) == pytest.approx(2)
    assert Work(1, 2, 3, 4) + Work(1, 1, 1, 1, 7) == Work(2, 3, 4, 5, 7)
    assert modelled_us(Work(0, 0, tf32=156_000_000), a100) == modelled_us(Work(0, 0, bf16=312_000_000), a100) == pytest.approx(1)


def test_the_command(tmp_path, monkeypatch):
    arguments = ["profile", "--static", "--arch", "sm_80", "--op", "philox_normal"]
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 0 and "modelled, not measured" in shown.output and "philox_normal_kernel" in shown.output
    found = json.loads(CliRunner().invoke(main, [*arguments, "--emulate", "--json"]).stdout)
    case = found["cases"]["philox_normal/64×64×3"]
    assert case["static"][0]["global_store_bytes"] == 16 and 1 <= case["emulated"]["over_floor"] < 1.1
    assert case["model"]["bytes"] == 64 * 64 * 64 * 3 * 4
    if nvcc.version():
        assert "csrc/cuda/philox_normal.cu" in shown.output and [r["registers"] for r in found["cuda_static"]["philox_normal"]]
        assert 1 <= found["cuda"]["philox_normal/64×64×3"]["emulated"]["over_floor"] < 1.1

    arguments = ["profile", "--op", "philox_normal"]
    changed = tmp_path / "baseline.json"
    monkeypatch.setattr("lab.command.BASELINE", changed)
    assert CliRunner().invoke(main, [*arguments, "--update"]).exit_code == 0
    written = json.loads(changed.read_text())

    def check(*more, **changes):
        changed.write_text(json.dumps(written | changes))
        return CliRunner().invoke(main, [*arguments, *more, "--check"])

    assert check().exit_code == 0
    if nvcc.version():
        worse = check("--static", cuda={"philox_normal": written["cuda"]["philox_normal"][:1]})
        assert worse.exit_code == 1 and "philox_normal for sm_80: its launches are not those of the baseline" in worse.output
        other = check("--static", nvcc="0.0")
        assert other.exit_code == 0 and "csrc/cuda not checked: the baseline is of nvcc 0.0" in other.output
    counts = written["counts"]["triton"]["philox_normal/64×64×3"]
    counts["sectors"] -= 1
    worse = check("--emulate")
    assert worse.exit_code == 1
    assert f"philox_normal/64×64×3: sectors of a step was {counts['sectors']}, is {counts['sectors'] + 1}" in worse.output
    assert check("--static").exit_code == 0  # which counts none
    written["cases"]["philox_normal/64×64×3"][0]["registers"] = 1
    worse = check("--static")
    assert worse.exit_code == 1 and "registers was 1, is" in worse.output
    other = check("--static", triton="0.0")
    assert other.exit_code == 3 and "Not checked: the baseline is of triton 0.0" in other.output
    refused = CliRunner().invoke(main, [*arguments, "--static", "--update"])
    assert refused.exit_code == 2 and "the baseline is of triton 0.0" in refused.output
    assert CliRunner().invoke(main, ["profile", "--op", "nothing"]).exit_code == 2


def test_the_laboratory_by_itself():
    command = [sys.executable, "-m", "lab", "--static", "--op", "nothing"]
    wrong = subprocess.run(command, cwd=BASELINE.parents[1], capture_output=True, text=True)
    assert wrong.returncode == 2 and "op: got 'nothing'" in wrong.stderr and wrong.stderr.count("\n") == 1


def test_an_op_of_which_nothing_can_be_shown_is_an_error_that_says_why(monkeypatch):
    monkeypatch.setattr(nvcc, "version", lambda: None)
    refused = CliRunner().invoke(main, ["profile", "--static", "--op", "langevin_fourier"])
    assert refused.exit_code == 2 and "this one is CUDA C++, and no nvcc is on the PATH" in refused.stderr


def test_a_package_that_is_missing_is_named(monkeypatch, tmp_path):
    """--emulate does without cuxray."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in missing else found(name, *rest))
    for missing, arguments in (({"cuxray"}, ["--static"]), ({"triton"}, ["--emulate"])):
        without = CliRunner().invoke(main, ["profile", *arguments])
        assert without.exit_code == 1 and f"needs {next(iter(missing))}: pip install 'alps_fast[profile]'" in without.stderr
    missing = {"matplotlib"}
    without = CliRunner().invoke(main, ["profile", "--roofline", str(tmp_path / "roof.png")])
    assert without.exit_code == 1 and "--roofline needs matplotlib" in without.stderr
    missing = {"cuxray"}
    monkeypatch.delitem(sys.modules, "lab.static")
    monkeypatch.setitem(sys.modules, "cuxray", None)
    monkeypatch.setattr(nvcc, "version", lambda: None)
    assert CliRunner().invoke(main, ["profile", "--emulate", "--op", "moments"]).exit_code == 0


@needs_nvcc
def test_the_stand_in_for_cuda_takes_no_place_of_the_real_module():
    before = sys.modules.get("alps_fast._cuda")
    assert host.library()[0] is not before and sys.modules.get("alps_fast._cuda") is before
