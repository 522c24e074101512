// An op's arguments between Python and C++: `layout` says how Python's struct packs them, `from` reads what it packed. Pointers
// come first, then numbers, in the order of the struct's `fields`; floats come as double, and are rounded here.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace alps {

template <class T>
using Packed = std::conditional_t<std::is_pointer_v<T>, uint64_t, std::conditional_t<std::is_same_v<T, float>, double, T>>;

template <class T>
constexpr char letter() {  // of Python's struct
  if constexpr (std::is_pointer_v<T>) return 'Q';
  else if constexpr (std::is_same_v<T, bool>) return '?';
  else if constexpr (std::is_floating_point_v<T>) return 'd';
  else if constexpr (std::is_same_v<T, uint32_t>) return 'I';
  else if constexpr (std::is_same_v<T, int>) return 'i';
  else {
    static_assert(sizeof(T) == 8 && std::is_integral_v<T>, "a type that has a letter");
    return 'q';  // seeds too, which are signed in Python
  }
}

struct Layout {
  std::vector<std::string> pointers;
  std::string letters;
  std::vector<std::string> numbers;  // each with its letter
};

template <class S>
Layout layout() {
  Layout found;
  S s = {};
  const char *const begin = reinterpret_cast<const char*>(&s), *end = begin;
  s.fields([&](const char* name, auto& field) {
    using T = std::remove_reference_t<decltype(field)>;
    const char* const here = reinterpret_cast<const char*>(&field);
    if (here < end || here - end >= 8) throw std::logic_error(std::string(name) + ": a member before it is not among the fields");
    end = here + sizeof(T);
    if constexpr (std::is_pointer_v<T>) found.pointers.emplace_back(name);
    else found.numbers.emplace_back(name), found.letters += letter<T>();
  });
  if (begin + sizeof(S) - end >= 8) throw std::logic_error("a member after the last of the fields");
  return found;
}

template <class S>
S from(std::string_view bytes) {
  S s = {};
  const auto read = [&](auto& field) {
    Packed<std::remove_reference_t<decltype(field)>> value;
    if (bytes.size() < sizeof value) throw std::invalid_argument("arguments: too few bytes");
    std::memcpy(&value, bytes.data(), sizeof value);
    bytes.remove_prefix(sizeof value);
    if constexpr (std::is_pointer_v<std::remove_reference_t<decltype(field)>>)
      field = reinterpret_cast<std::remove_reference_t<decltype(field)>>(static_cast<uintptr_t>(value));
    else field = static_cast<std::remove_reference_t<decltype(field)>>(value);
  };
  for (const bool pointers : {true, false})
    s.fields([&](const char*, auto& field) {
      if (std::is_pointer_v<std::remove_reference_t<decltype(field)>> == pointers) read(field);
    });
  if (!bytes.empty()) throw std::invalid_argument("arguments: too many bytes");
  return s;
}

// An op of a module, or with a suffix what belongs to one: run(arguments, more...) of its packed arguments, whose layout stands
// among the module's `layouts`.
template <class S, class... More, class Run>
void bind(pybind11::module_& m, const std::string& op, const char* suffix, Run run) {
  const Layout found = layout<S>();
  if (!pybind11::hasattr(m, "layouts")) m.attr("layouts") = pybind11::dict();
  m.attr("layouts")[op.c_str()] = pybind11::make_tuple(found.pointers, found.letters, found.numbers);
  m.def((op + suffix).c_str(), [run](const pybind11::bytes& arguments, More... more) {
    const S s = from<S>(arguments);
    pybind11::gil_scoped_release release;
    return run(s, more...);
  });
}

}  // namespace alps
