"""ptxsim: small kernels in PTX, whose results, sectors and conflicts are known; and nvcc's own code for philox_normal."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from alps_fast.ops.philox_normal import philox_normal
from lab.nvcc import FLAGS
from lab.ptxsim import Module, Pointer, PtxError

HEADER = ".version 8.0\n.target sm_80\n.address_size 64\n"
ROOT = Path(__file__).resolve().parent.parent


def copy_kernel(stride=1, shift=0):
    """out[i + shift] = in[stride i] for i = 256 block + thread < count."""
    return Module(HEADER + f"""
.visible .entry copy(.param .u64 in, .param .u64 out, .param .u32 count) {{
  .reg .pred %p<2>; .reg .b32 %r<8>; .reg .b64 %rd<8>; .reg .f32 %f<2>;
  ld.param.u64 %rd1, [in]; ld.param.u64 %rd2, [out]; ld.param.u32 %r1, [count];
  mov.u32 %r2, %tid.x; mov.u32 %r3, %ctaid.x; mov.u32 %r4, %ntid.x;
  mad.lo.s32 %r5, %r3, %r4, %r2;
  setp.ge.u32 %p1, %r5, %r1;
  @%p1 bra DONE;
  mul.lo.s32 %r6, %r5, {stride};
  mul.wide.u32 %rd3, %r6, 4; add.s64 %rd4, %rd1, %rd3; ld.global.f32 %f1, [%rd4];
  mul.wide.u32 %rd5, %r5, 4; add.s64 %rd6, %rd2, %rd5; st.global.f32 [%rd6+{4 * shift}], %f1;
DONE:
  ret;
}}""").kernel("copy")


def shared_kernel(pitch):
    """Each lane of a warp writes the word pitch · lane of shared memory and reads it back."""
    return Module(HEADER + f"""
.visible .entry bounce(.param .u64 out) {{
  .shared .align 16 .b8 words[8192];
  .reg .b32 %r<6>; .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [out]; mov.u32 %r1, %tid.x; mov.u32 %r2, words;
  mad.lo.s32 %r3, %r1, {4 * pitch}, %r2;
  st.shared.u32 [%r3], %r1; bar.sync 0; ld.shared.u32 %r4, [%r3];
  mul.wide.u32 %rd2, %r1, 4; add.s64 %rd3, %rd1, %rd2; st.global.u32 [%rd3], %r4;
  ret;
}}""").kernel()


def test_a_coalesced_copy_moves_one_sector_for_32_bytes():
    source, out = np.arange(1000, dtype=np.float32), np.full(1000, np.nan, np.float32)
    count = copy_kernel().launch((4,), (256,), [source, out, 1000])
    assert np.array_equal(source, out)
    assert count["global_load_sectors"] == count["global_store_sectors"] == 1000 * 4 // 32
    assert count["distinct_load_sectors"] == count["distinct_store_sectors"] == 1000 * 4 // 32
    assert count["global_load_bytes"] == 4000 and count["global_load_requests"] == 32  # the last warp's tail in one, too


@pytest.mark.parametrize("stride, sectors", [(2, 2), (8, 8), (16, 8)])
def test_a_strided_copy_moves_more_sectors(stride, sectors):
    source, out = np.arange(1024 * stride, dtype=np.float32), np.zeros(1024, np.float32)
    count = copy_kernel(stride).launch((4,), (256,), [source, out, 1024])
    assert np.array_equal(source[::stride], out) and count["global_load_sectors"] == sectors * 1024 * 4 // 32


def test_a_sector_asked_for_twice_is_one_distinct_sector():
    """Blocks of 4 threads write half a sector each, and the other half is another block's, some in another chunk."""
    source, out = np.arange(4096, dtype=np.float32), np.zeros(1024, np.float32)
    count = copy_kernel(4).launch((256,), (4,), [source, out, 1024], chunk=64)
    assert count["global_load_sectors"] == 512 and count["global_store_sectors"] == 256
    assert count["distinct_load_sectors"] == 512 and count["distinct_store_sectors"] == 128


def test_pointers_into_one_memory_meet_there():
    """The second half becomes the first, whose sectors are those that were read before; past its end is past the memory's."""
    memory = np.arange(64, dtype=np.float32).view(np.uint8)
    halves = [(Pointer(memory, 128),), (Pointer(memory, 0),)]
    count = copy_kernel().launch((1,), (32,), [*halves, 32])
    assert memory.view(np.float32)[:32].tolist() == list(range(32, 64))
    assert count["distinct_load_sectors"] == count["distinct_store_sectors"] == 4
    with pytest.raises(PtxError, match="byte 256 of 256"):
        copy_kernel().launch((1,), (64,), [*halves, 33])


def test_an_access_out_of_bounds_raises():
    source, out = np.zeros(100, np.float32), np.zeros(100, np.float32)
    with pytest.raises(PtxError, match=r"byte 400 of 400 in `st.global.f32"):
        copy_kernel(shift=1).launch((1,), (128,), [source, out, 100])
    with pytest.raises(PtxError, match=r"byte 508 of 400 in `ld.global.f32"):
        copy_kernel().launch((1,), (128,), [source, out, 128])


def test_a_null_pointer_and_a_misaligned_one_raise():
    out = np.zeros(4, np.float32)
    with pytest.raises(PtxError, match="is in no array"):
        copy_kernel().launch((1,), (32,), [0, out, 4])
    with pytest.raises(PtxError, match="misaligned 4-byte access"):
        copy_kernel().launch((1,), (32,), [(1 << 40) + 2, out, 4])


@pytest.mark.parametrize("pitch, ways", [(1, 1), (2, 2), (32, 32), (33, 1)])
def test_bank_conflicts_are_counted(pitch, ways):
    out = np.zeros(32, np.uint32)
    count = shared_kernel(pitch).launch((1,), (32,), [out])
    assert np.array_equal(out, np.arange(32))
    assert count["shared_store_conflicts"] == count["shared_load_conflicts"] == ways - 1
    assert count["shared_load_wavefronts"] == ways and count["barriers"] == 1


def test_fma_rounds_once_and_wide_products_keep_their_upper_half():
    kernel = Module(HEADER + """
.visible .entry arithmetic(.param .u64 a, .param .u64 b, .param .u64 c, .param .u64 out, .param .u64 high) {
  .reg .b32 %r<4>; .reg .b64 %rd<12>; .reg .f32 %f<5>;
  ld.param.u64 %rd1, [a]; ld.param.u64 %rd2, [b]; ld.param.u64 %rd3, [c]; ld.param.u64 %rd4, [out]; ld.param.u64 %rd5, [high];
  mov.u32 %r1, %tid.x; mul.wide.u32 %rd6, %r1, 4;
  add.s64 %rd1, %rd1, %rd6; add.s64 %rd2, %rd2, %rd6; add.s64 %rd3, %rd3, %rd6; add.s64 %rd4, %rd4, %rd6;
  add.s64 %rd5, %rd5, %rd6;
  ld.global.f32 %f1, [%rd1]; ld.global.f32 %f2, [%rd2]; ld.global.f32 %f3, [%rd3];
  fma.rn.f32 %f4, %f1, %f2, %f3; st.global.f32 [%rd4], %f4;
  ld.global.u32 %r2, [%rd1]; ld.global.u32 %r3, [%rd2]; mul.hi.u32 %r2, %r2, %r3; st.global.u32 [%rd5], %r2;
  ret;
}""").kernel()
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 1024)).astype(np.float32)
    c = -(a * b)  # cancels all but the product's rounding error
    out, high = np.zeros(1024, np.float32), np.zeros(1024, np.uint32)
    kernel.launch((1,), (1024,), [a, b, c, out, high])
    assert np.array_equal(out, (a.astype(np.float64) * b + c).astype(np.float32)) and np.any(out)
    words = [v.view(np.uint32).astype(np.uint64) for v in (a, b)]
    assert np.array_equal(high, words[0] * words[1] >> np.uint64(32))


def test_what_is_not_known_raises():
    with pytest.raises(PtxError, match="no .entry"):
        Module(HEADER)
    unknown = Module(HEADER + ".visible .entry k() { .reg .b32 %r<2>; wgmma.fence.sync.aligned; ret; }").kernel()
    with pytest.raises(PtxError, match="instruction not supported in `wgmma"):
        unknown.launch((1,), (32,), [])


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on the PATH")
@pytest.mark.parametrize("n", [1, 30, 1021, 2048])
def test_nvcc_code_of_philox_normal_has_the_bits_of_the_reference(n, tmp_path):
    ptx = tmp_path / "philox_normal.ptx"
    subprocess.run(["nvcc", "-ptx", "-arch=sm_80", *FLAGS, ROOT / "csrc/cuda/philox_normal.cu", "-o", ptx], check=True)
    ids, seed, step, tag = np.array([[0, 0], [7, 3], [2**32 - 1, 2**24 - 1]]), -5, 250, 1
    keys = [word + turn * bump for turn in range(10) for word, bump in ((seed, 0x9E3779B9), (seed >> 32, 0xBB67AE85))]
    stream = np.array([step, tag, *(key % 2**32 for key in keys)], np.uint32).tobytes()  # as alps::Stream
    out = np.full((3, n), np.nan, np.float32)
    kernel = Module(ptx.read_text()).kernel("ILb1E" if n % 4 == 0 else "ILb0E")
    count = kernel.launch((2, 3), (256,), [ids, 3, n, stream, out])
    want = philox_normal(torch.from_numpy(ids), n, seed, step, tag, "torch").numpy()
    assert np.array_equal(out.view(np.uint32), want.view(np.uint32))
    assert n % 32 or count["global_store_sectors"] == 3 * n * 4 // 32
