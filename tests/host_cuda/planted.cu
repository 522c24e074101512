// Kernels with and without a planted fault, to see that the stand-in catches it: planted <fault> <seed>.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "../../csrc/cuda/loop.h"

constexpr int THREADS = 64;

extern "C" void host_cuda_seed(uint64_t);

// out[t] = in[THREADS - 1 - t], through shared memory
template <bool BARRIER>
__global__ void reverse(const float* in, float* out) {
  float* shared = alps::shared_floats();
  shared[threadIdx.x] = in[threadIdx.x];
  if (BARRIER) __syncthreads();
  out[threadIdx.x] = shared[THREADS - 1 - threadIdx.x];
}

// The second use of the memory comes before everybody has read the first.
__global__ void reuse(const float* in, float* out) {
  float* shared = alps::shared_floats();
  shared[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  const float other = shared[THREADS - 1 - threadIdx.x];
  shared[threadIdx.x] = -1;
  out[threadIdx.x] = other;
}

__global__ void all_write_one(const float* in, float* out) { out[0] = in[threadIdx.x]; }
__global__ void past_the_array(const float* in, float* out) { out[threadIdx.x + 1] = in[threadIdx.x]; }

__global__ void past_the_shared(const float* in, float* out) {
  alps::shared_floats()[threadIdx.x + 1] = in[threadIdx.x];
  out[threadIdx.x] = 0;
}

__global__ void unaligned(const float* in, float* out) { *reinterpret_cast<float4*>(out + 1) = *reinterpret_cast<const float4*>(in); }

__global__ void early_exit(const float* in, float* out) {
  if (threadIdx.x == 3) return;
  __syncthreads();
  out[threadIdx.x] = in[threadIdx.x];
}

__global__ void half_a_warp(const float* in, float* out) {
  out[threadIdx.x] = in[threadIdx.x];
  if (threadIdx.x % 32 < 16) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, in[threadIdx.x], 1);
}

// Everything that waits, in one kernel that is right: a sum over the block in four ways.
__global__ void collectives(const float* in, float* out) {
  float* shared = alps::shared_floats();
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float sum = in[threadIdx.x];
  for (unsigned by = 16; by > 0; by /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, by);
  float down = in[threadIdx.x];
  for (unsigned by = 16; by > 0; by /= 2) down += __shfl_down_sync(0xffffffffu, down, by);
  down = __shfl_sync(0xffffffffu, down, 0);
  const unsigned even = __ballot_sync(0xffffffffu, lane % 2 == 0);
  shared[threadIdx.x] = in[threadIdx.x];
  __syncwarp();
  const float neighbour = shared[32 * warp + (lane ^ 1)];
  __syncthreads();
  if (lane == 0) shared[warp] = sum == down && even == 0x55555555u ? sum : -1;
  __syncthreads();
  out[threadIdx.x] = shared[0] + shared[1] + neighbour;
}

__global__ void set(double* value, double to) {
  if (threadIdx.x == 0) *value = to;
}

__global__ void count_down(double* left, float* out) {
  if (threadIdx.x == 0) *left -= 1, out[0] += 1;
}

__global__ void twice(float* out) {
  if (threadIdx.x == 0) out[0] *= 2;
}

// out[0] = 2 (out[0] + 5) in a graph, run three times.
void loop(const std::string& fault, float* out) {
  double left = 0;
  const cudaStream_t stream = host_cuda::begin_capture();
  const auto run = [](cudaStream_t on, auto kernel, auto... arguments) {
    alps::launch("planted", kernel, dim3(1), dim3(32), 0, on, arguments...);
  };
  run(stream, set, &left, 5.0);
  alps::cuda::capture_while("planted", stream, &left, [&](cudaStream_t inside) {
    run(fault == "_beside" ? stream : fault == "_outside" ? nullptr : inside, count_down, &left, out);
  });
  if (fault == "_unordered") cudaStreamUpdateCaptureDependencies(stream, nullptr, nullptr, 0, cudaStreamSetCaptureDependencies);
  run(stream, twice, out);
  cudaGraphConditionalHandle handle = 0;
  if (fault == "_handle") cudaGraphConditionalHandleCreate(&handle, stream->graph, 0, 0);
  const cudaGraph_t graph = host_cuda::end_capture(stream);
  for (int i = 0; i < 3; ++i) host_cuda::replay(graph);
}

int main(int, char** arguments) {
  const std::string fault = arguments[1];
  host_cuda_seed(std::strtoull(arguments[2], nullptr, 10));
  std::vector<float> in(THREADS), out(THREADS);
  for (int i = 0; i < THREADS; ++i) in[i] = static_cast<float>(i);
  const auto run = [&](void (*kernel)(const float*, float*)) {
    alps::launch("planted", kernel, dim3(1), dim3(THREADS), THREADS * sizeof(float), cudaStream_t{}, in.data(), out.data());
  };
  if (fault == "none") run(reverse<true>);
  if (fault == "missing_barrier") run(reverse<false>);
  if (fault == "reuse") run(reuse);
  if (fault == "all_write_one") run(all_write_one);
  if (fault == "past_the_array") run(past_the_array);
  if (fault == "past_the_shared") run(past_the_shared);
  if (fault == "unaligned") run(unaligned);
  if (fault == "early_exit") run(early_exit);
  if (fault == "half_a_warp") run(half_a_warp);
  if (fault == "collectives") run(collectives);
  if (fault.starts_with("loop")) loop(fault.substr(4), out.data());
  for (const float v : out) std::printf("%g ", v);
}
