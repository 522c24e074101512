// A loop inside a CUDA graph, whose end is decided on the device.
#pragma once

#include <functional>

#include "launch.h"

namespace alps::cuda {

// What `body` launches on the stream that it is given becomes a loop of the graph that is being captured from `stream`: it runs
// for as long as *goes_on is not zero, which is read before it, and each time after it. Waits for nothing.
void capture_while(const char* name, cudaStream_t stream, const double* goes_on, const std::function<void(cudaStream_t)>& body);

}  // namespace alps::cuda
