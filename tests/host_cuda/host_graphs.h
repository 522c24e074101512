// CUDA graphs of the stand-in: what is launched into a stream that captures becomes a node, which a replay runs in any order that
// the dependencies allow, the seed's choice. What a real runtime would refuse, or would leave undefined, ends the process.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#define CUDART_VERSION 13000

struct CUgraphNode_st {
  std::function<void()> run;
  std::vector<CUgraphNode_st*> before;
};

struct CUgraph_st {
  CUgraph_st* parent = nullptr;
  std::vector<std::unique_ptr<CUgraphNode_st>> nodes{};
  std::vector<struct HostCondition*> conditions{};  // of handles made for it
  int streams = 0;                                // that capture into it now
  bool replays = false;
};

struct CUstream_st {
  CUgraph_st* graph = nullptr;  // that it captures into
  std::vector<CUgraphNode_st*> last;
};

using cudaGraph_t = CUgraph_st*;
using cudaGraphNode_t = CUgraphNode_st*;
using cudaStream_t = CUstream_st*;
using cudaGraphConditionalHandle = unsigned long long;

enum cudaError_t { cudaSuccess, cudaErrorInvalidValue, cudaErrorInvalidConfiguration, cudaErrorStreamCaptureImplicit };
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone, cudaStreamCaptureStatusActive };
enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed };
enum cudaGraphNodeType { cudaGraphNodeTypeKernel = 0, cudaGraphNodeTypeConditional = 13 };
enum cudaGraphConditionalNodeType { cudaGraphCondTypeIf, cudaGraphCondTypeWhile };
constexpr unsigned cudaStreamSetCaptureDependencies = 1, cudaStreamNonBlocking = 1;

struct cudaGraphEdgeData {
  unsigned char from_port, to_port, type, reserved[5];
};

struct cudaGraphNodeParams {
  cudaGraphNodeType type;
  int reserved0[3];
  struct {
    cudaGraphConditionalHandle handle;
    cudaGraphConditionalNodeType type;
    unsigned size;
    cudaGraph_t* phGraph_out;
  } conditional;
};

struct HostCondition {  // what a handle stands for
  cudaGraph_t graph, body;
  unsigned value;
  bool is_set;  // in this replay
};

namespace host_cuda {

[[noreturn]] void fail(const char* what);
uint64_t random_number();
inline std::vector<std::unique_ptr<HostCondition>> conditions;
inline int captures = 0;
inline cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;  // of the thread

inline cudaGraph_t root(cudaGraph_t graph) { return graph->parent ? root(graph->parent) : graph; }

// A node that stands behind all that the stream captured before; `run` is what it does in a replay.
inline void record(cudaStream_t stream, std::function<void()> run) {
  for (const HostCondition* loop : stream->graph->conditions)
    if (loop->body && loop->body->streams) fail("a launch beside a loop whose body is being captured");
  stream->graph->nodes.push_back(std::make_unique<CUgraphNode_st>(CUgraphNode_st{std::move(run), stream->last}));
  stream->last = {stream->graph->nodes.back().get()};
}

inline void run(const CUgraph_st& graph) {
  std::vector<const CUgraphNode_st*> done, waiting;
  for (const auto& node : graph.nodes) waiting.push_back(node.get());
  const auto ready = [&](const CUgraphNode_st* node) {
    for (const CUgraphNode_st* other : node->before)
      if (std::find(done.begin(), done.end(), other) == done.end()) return false;
    return true;
  };
  while (!waiting.empty()) {
    std::vector<size_t> able;
    for (size_t i = 0; i < waiting.size(); ++i)
      if (ready(waiting[i])) able.push_back(i);
    const size_t next = able[random_number() % able.size()];
    done.push_back(waiting[next]);
    waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(next));
    done.back()->run();
  }
}

inline cudaStream_t begin_capture() {
  ++captures;
  return new CUstream_st{new CUgraph_st, {}};
}

inline cudaGraph_t end_capture(cudaStream_t stream) {
  const cudaGraph_t graph = stream->graph;
  if (--captures) fail("a capture ends before those inside it");
  for (const HostCondition* loop : graph->conditions)
    if (!loop->body) fail("a handle without a node");
  std::vector<CUgraphNode_st*> joined = stream->last;
  for (size_t i = 0; i < joined.size(); ++i)
    for (CUgraphNode_st* node : joined[i]->before)
      if (std::find(joined.begin(), joined.end(), node) == joined.end()) joined.push_back(node);
  if (joined.size() != graph->nodes.size()) fail("captured work that the stream does not wait for");
  delete stream;
  return graph;
}

inline void replay(cudaGraph_t graph) {
  for (HostCondition* loop : graph->conditions) loop->is_set = false;
  graph->replays = true;
  run(*graph);
  graph->replays = false;
}

}  // namespace host_cuda

inline cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, host_cuda::mode);
  return cudaSuccess;
}

inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  if (host_cuda::captures && host_cuda::mode != cudaStreamCaptureModeRelaxed) host_cuda::fail("a stream is made in a capture");
  *stream = new CUstream_st;
  return cudaSuccess;
}

inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (stream->graph) host_cuda::fail("a stream is destroyed while it captures");
  delete stream;
  return cudaSuccess;
}

inline cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus* status, unsigned long long*,
                                            cudaGraph_t* graph, const cudaGraphNode_t** before, const cudaGraphEdgeData** edges,
                                            size_t* count) {
  *status = stream && stream->graph ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  if (*status == cudaStreamCaptureStatusNone) return cudaSuccess;
  *graph = stream->graph, *before = stream->last.data(), *edges = nullptr, *count = stream->last.size();
  return cudaSuccess;
}

inline cudaError_t cudaStreamUpdateCaptureDependencies(cudaStream_t stream, cudaGraphNode_t* nodes, const cudaGraphEdgeData*,
                                                       size_t count, unsigned flags) {
  if (!stream->graph) return cudaErrorInvalidValue;
  if (flags != cudaStreamSetCaptureDependencies) stream->last.insert(stream->last.end(), nodes, nodes + count);
  else stream->last.assign(nodes, nodes + count);
  return cudaSuccess;
}

inline cudaError_t cudaStreamBeginCaptureToGraph(cudaStream_t stream, cudaGraph_t graph, const cudaGraphNode_t* before,
                                                 const cudaGraphEdgeData*, size_t count, cudaStreamCaptureMode) {
  if (!stream || stream->graph || graph->replays) return cudaErrorInvalidValue;
  stream->graph = graph, stream->last.assign(before, before + count);
  ++graph->streams, ++host_cuda::captures;
  return cudaSuccess;
}

inline cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  if (!stream->graph) return cudaErrorInvalidValue;
  *graph = std::exchange(stream->graph, nullptr);
  --(*graph)->streams, --host_cuda::captures;
  return cudaSuccess;
}

inline cudaError_t cudaGraphConditionalHandleCreate(cudaGraphConditionalHandle* handle, cudaGraph_t graph, unsigned, unsigned) {
  host_cuda::conditions.push_back(std::make_unique<HostCondition>(HostCondition{graph, nullptr, 0, false}));
  graph->conditions.push_back(host_cuda::conditions.back().get());
  *handle = host_cuda::conditions.size();
  return cudaSuccess;
}

inline cudaError_t cudaGraphAddNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* before,
                                    const cudaGraphEdgeData*, size_t count, cudaGraphNodeParams* parameters) {
  auto& made = parameters->conditional;
  if (parameters->type != cudaGraphNodeTypeConditional || made.type != cudaGraphCondTypeWhile || made.size != 1 ||
      made.handle - 1 >= host_cuda::conditions.size())
    return cudaErrorInvalidValue;
  HostCondition* const loop = host_cuda::conditions[made.handle - 1].get();
  if (loop->graph != graph || loop->body) return cudaErrorInvalidValue;
  loop->body = new CUgraph_st{.parent = graph};
  made.phGraph_out = &loop->body;
  for (size_t i = 0; i < count; ++i)
    if (std::none_of(graph->nodes.begin(), graph->nodes.end(), [&](const auto& other) { return other.get() == before[i]; }))
      return cudaErrorInvalidValue;
  const auto repeat = [loop] {
    if (!loop->is_set) host_cuda::fail("a condition that nobody has set");
    while (loop->value) host_cuda::run(*loop->body);
  };
  graph->nodes.push_back(std::make_unique<CUgraphNode_st>(CUgraphNode_st{repeat, {before, before + count}}));
  *node = graph->nodes.back().get();
  return cudaSuccess;
}

// In a kernel.
inline void cudaGraphSetConditional(cudaGraphConditionalHandle handle, unsigned value) {
  if (handle - 1 >= host_cuda::conditions.size() || !host_cuda::root(host_cuda::conditions[handle - 1]->graph)->replays)
    host_cuda::fail("a condition of a graph that does not run");
  host_cuda::conditions[handle - 1]->value = value, host_cuda::conditions[handle - 1]->is_set = true;
}
