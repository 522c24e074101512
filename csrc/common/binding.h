// An op's arguments between Python and C++, eight bytes each: pointers first, then numbers, in the order of the struct's
// `fields`. `layout` says how Python's struct packs them, `from` reads what it packed; floats come as double, and are rounded here.
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

template <class S, class Visit>
void each_field(S& s, Visit visit) {
  for (const bool pointers : {true, false})
    s.fields([&](const char* name, auto& field) {
      if (std::is_pointer_v<std::remove_reference_t<decltype(field)>> == pointers) visit(name, field);
    });
}

constexpr size_t aligned(size_t end, size_t alignment) { return (end + alignment - 1) / alignment * alignment; }

// Every field's name and its letter of Python's struct. Between two fields, and after the last, lies what alignment asks for.
template <class S>
std::vector<std::pair<std::string, std::string>> layout() {
  S s = {};
  size_t end = 0;
  s.fields([&](const char* name, auto& field) {
    const size_t here = reinterpret_cast<const char*>(&field) - reinterpret_cast<const char*>(&s);
    if (here != aligned(end, alignof(std::remove_reference_t<decltype(field)>)))
      throw std::logic_error(std::string(name) + ": a member before it is not among the fields");
    end = here + sizeof field;
  });
  if (sizeof s != aligned(end, alignof(S))) throw std::logic_error("a member after the last of the fields");
  std::vector<std::pair<std::string, std::string>> found;
  each_field(s, [&](const char* name, auto& field) {
    using T = std::remove_reference_t<decltype(field)>;
    static_assert(std::is_pointer_v<T> || std::is_arithmetic_v<T>, "a type that has a letter");
    found.emplace_back(name, std::is_pointer_v<T> ? "Q" : std::is_floating_point_v<T> ? "d" : "q");  // seeds are signed in Python
  });
  return found;
}

template <class S>
S from(std::string_view bytes) {
  S s = {};
  each_field(s, [&](const char* name, auto& field) {
    using T = std::remove_reference_t<decltype(field)>;
    std::conditional_t<std::is_floating_point_v<T>, double, int64_t> value;
    if (bytes.size() < sizeof value) throw std::invalid_argument("arguments: too few bytes");
    std::memcpy(&value, bytes.data(), sizeof value);
    bytes.remove_prefix(sizeof value);
    if constexpr (std::is_pointer_v<T>) field = reinterpret_cast<T>(value);
    else field = static_cast<T>(value);
    if constexpr (std::is_integral_v<T>)
      if (static_cast<int64_t>(field) != value) throw std::invalid_argument(name + (": no room for " + std::to_string(value)));
  });
  if (!bytes.empty()) throw std::invalid_argument("arguments: too many bytes");
  return s;
}

// An op of a module, or with a suffix what belongs to one: run(arguments, more...) of its packed arguments, whose layout stands
// among the module's `layouts`. Not `bind`: called with a std::string, without more, that would be std::bind.
template <class S, class... More, class Run>
void expose(pybind11::module_& m, const char* op, const std::string& suffix, Run run) {
  if (!pybind11::hasattr(m, "layouts")) m.attr("layouts") = pybind11::dict();
  m.attr("layouts")[op] = layout<S>();
  m.def((op + suffix).c_str(), [run](const pybind11::bytes& arguments, More... more) {
    const S s = from<S>(arguments);
    pybind11::gil_scoped_release release;
    return run(s, more...);
  });
}

}  // namespace alps
