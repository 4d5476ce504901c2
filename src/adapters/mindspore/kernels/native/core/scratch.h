// Memory that is kept between calls.
#pragma once

#include "parallel.h"

namespace glm3 {

// Uninitialised memory that is kept between calls and grows as needed; float's alignment is a cache line.
template <class Value>
class Scratch {
 public:
  Value* of(Index size) {
    if (size > size_) {
      buffer_ = std::make_unique<Buffer>(ceil_div(size * static_cast<Index>(sizeof(Value)), sizeof(float)));
      size_ = size;
    }
    return reinterpret_cast<Value*>(buffer_->data());
  }

 private:
  std::unique_ptr<Buffer> buffer_;
  Index size_ = 0;
};

}  // namespace glm3
