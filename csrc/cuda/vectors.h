// Sixteen bytes at a time where the layout allows it, element by element where it does not.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace alps {

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  using type = float4;
};
template <>
struct VectorOf<double> {
  using type = double2;
};

template <class T>
constexpr int WIDTH = 16 / sizeof(T);

// Elements first … first + WIDTH − 1 of an array of n; those past its end read as zero and are not written.
template <bool ALIGNED, class T>
__device__ __forceinline__ void load(const T* array, int64_t first, int64_t n, T (&v)[WIDTH<T>]) {
  if constexpr (ALIGNED) {
    *reinterpret_cast<typename VectorOf<T>::type*>(v) = *reinterpret_cast<const typename VectorOf<T>::type*>(array + first);
  } else {
#pragma unroll
    for (int i = 0; i < WIDTH<T>; ++i) v[i] = first + i < n ? array[first + i] : T(0);
  }
}

template <bool ALIGNED, class T>
__device__ __forceinline__ void store(T* array, int64_t first, int64_t n, const T (&v)[WIDTH<T>]) {
  if constexpr (ALIGNED) {
    *reinterpret_cast<typename VectorOf<T>::type*>(array + first) = *reinterpret_cast<const typename VectorOf<T>::type*>(v);
  } else {
#pragma unroll
    for (int i = 0; i < WIDTH<T>; ++i)
      if (first + i < n) array[first + i] = v[i];
  }
}

// A complex pixel of a state, whole where the state lies on 8 bytes.
__device__ __forceinline__ float2 pixel_at(bool whole, const float* image, int64_t pixel) {
  if (whole) return reinterpret_cast<const float2*>(image)[pixel];
  return make_float2(image[2 * pixel], image[2 * pixel + 1]);
}

__device__ __forceinline__ void put_pixel(bool whole, float* image, int64_t pixel, float2 value) {
  if (whole) reinterpret_cast<float2*>(image)[pixel] = value;
  else image[2 * pixel] = value.x, image[2 * pixel + 1] = value.y;
}

template <int BYTES, class... Pointers>
bool on_bytes(Pointers... pointers) {  // a null pointer is
  return ((reinterpret_cast<uintptr_t>(pointers) % BYTES == 0) && ...);
}

template <class... Pointers>
bool on_16_bytes(Pointers... pointers) {
  return on_bytes<16>(pointers...);
}

}  // namespace alps
