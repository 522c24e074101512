"""The stand-in builds, once a session; skipped where g++ has no sanitizers."""

import pytest

from build import Worker, why_not


@pytest.fixture(scope="session")
def host_cuda_directory(tmp_path_factory):
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    return tmp_path_factory.mktemp("host_cuda")


@pytest.fixture(scope="session")
def fibers(host_cuda_directory):
    """Run an op's CUDA implementation on fibers, under AddressSanitizer and UBSan."""
    worker = Worker("fibers", host_cuda_directory)
    yield worker
    worker.close()


@pytest.fixture(scope="session")
def threads_of_the_os(host_cuda_directory):
    """Run an op's CUDA implementation on OS threads, under ThreadSanitizer."""
    worker = Worker("threads", host_cuda_directory)
    yield worker
    worker.close()
