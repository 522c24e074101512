// A conditional node of type WHILE, its body captured from a stream of its own. It is a source by itself because drivers older
// than CUDA 12.4 cannot load its kernel: there only this fails.
#include "loop.h"

namespace alps::cuda {

#if CUDART_VERSION < 12040

void capture_while(const char* name, cudaStream_t, const double*, const std::function<void(cudaStream_t)>&) {
  throw std::runtime_error(std::string(name) + ": built with a CUDA older than 12.4, which knows no loop inside a graph");
}

#else

namespace {

#if CUDART_VERSION < 13000  // where the names without a number are of functions that know no data of edges
constexpr auto capture_info = cudaStreamGetCaptureInfo_v3;
constexpr auto add_node = cudaGraphAddNode_v2;
constexpr auto set_dependencies = cudaStreamUpdateCaptureDependencies_v2;
#else
constexpr auto capture_info = cudaStreamGetCaptureInfo;
constexpr auto add_node = cudaGraphAddNode;
constexpr auto set_dependencies = cudaStreamUpdateCaptureDependencies;
#endif

__global__ void __launch_bounds__(32) loop_decide(cudaGraphConditionalHandle loop, const double* goes_on) {
  if (threadIdx.x == 0) cudaGraphSetConditional(loop, *goes_on != 0);
}

// While it lasts, a capture does not forbid its thread what may touch other streams, as making and destroying one may.
struct Relaxed {
  Relaxed() { cudaThreadExchangeStreamCaptureMode(&mode); }
  Relaxed(const Relaxed&) = delete;
  ~Relaxed() { cudaThreadExchangeStreamCaptureMode(&mode); }
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
};

struct OwnStream {
  explicit OwnStream(const char* name) {
    const Relaxed relaxed;
    check_cuda(name, cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  }
  OwnStream(const OwnStream&) = delete;
  ~OwnStream() {
    const Relaxed relaxed;
    cudaStreamDestroy(stream);
  }
  cudaStream_t stream;
};

}  // namespace

void capture_while(const char* name, cudaStream_t stream, const double* goes_on, const std::function<void(cudaStream_t)>& body) {
  const auto check = [name](cudaError_t error) { check_cuda(name, error); };
  cudaStreamCaptureStatus status;
  cudaGraph_t graph;
  const cudaGraphNode_t* before;
  const cudaGraphEdgeData* edges;
  size_t count;
  const auto look = [&] { check(capture_info(stream, &status, nullptr, &graph, &before, &edges, &count)); };
  look();
  if (status != cudaStreamCaptureStatusActive) throw std::runtime_error(std::string(name) + ": no graph is being captured");

  cudaGraphNodeParams loop = {};
  loop.type = cudaGraphNodeTypeConditional;
  loop.conditional.type = cudaGraphCondTypeWhile;
  loop.conditional.size = 1;
  check(cudaGraphConditionalHandleCreate(&loop.conditional.handle, graph, 0, 0));
  const auto decide = [&](cudaStream_t on) {
    launch(name, loop_decide, dim3(1), dim3(32), 0, on, loop.conditional.handle, goes_on);
  };
  decide(stream);
  look();  // for the node of this launch, which the loop comes after
  cudaGraphNode_t node;
  check(add_node(&node, graph, before, edges, count, &loop));
  check(set_dependencies(stream, &node, nullptr, 1, cudaStreamSetCaptureDependencies));

  const OwnStream inside(name);
  cudaGraph_t inner = loop.conditional.phGraph_out[0];
  check(cudaStreamBeginCaptureToGraph(inside.stream, inner, nullptr, nullptr, 0, cudaStreamCaptureModeThreadLocal));
  try {
    body(inside.stream);
    decide(inside.stream);
  } catch (...) {
    cudaStreamEndCapture(inside.stream, &inner);
    throw;
  }
  check(cudaStreamEndCapture(inside.stream, &inner));
}

#endif

}  // namespace alps::cuda
