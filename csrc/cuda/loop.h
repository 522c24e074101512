// A loop inside a CUDA graph, whose end is decided on the device.
#pragma once

#include <functional>

#include "launch.h"

namespace alps::cuda {

// What `body` launches on the stream that it is given becomes a loop of the graph that is being captured from `stream`: it runs
// once, and again for as long as it leaves *goes_on other than zero. Waits for nothing.
void capture_loop(const char* name, cudaStream_t stream, const double* goes_on, const std::function<void(cudaStream_t)>& body);

}  // namespace alps::cuda
