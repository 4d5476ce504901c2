// Adam with decoupled weight decay (Loshchilov and Hutter, 2019), in place.
#pragma once

#include <cmath>

#include "parallel.h"
#include "vec.h"

namespace glm3 {

// One step's settings. With both corrections 1 this is Adam without bias correction, whose step is
// parameter -= learning_rate * (m / (sqrt(v) + epsilon) + weight_decay * parameter).
struct AdamWSettings {
  float learning_rate, beta1, beta2, epsilon, weight_decay;
  float rest1, rest2;              // 1 - beta, not taken in float32: that costs 1e-5 of it at 0.999
  float correction1, correction2;  // 1 / (1 - beta^step)
  float gradient_scale;            // applied to the gradient first: unscaling and clipping in one factor
  float apply;                     // 0 leaves everything as it is: a step skipped after an overflow
};

constexpr Index kAdamWSettings = sizeof(AdamWSettings) / sizeof(float);

// Updates parameter, m and v (size) from gradient (size).
inline void adamw(float* __restrict parameter, float* __restrict m, float* __restrict v,
                  const float* __restrict gradient, const AdamWSettings& s, Index size) {
  if (s.apply == 0.0f) return;
  const float keep = 1.0f - s.learning_rate * s.weight_decay;
  const float step = s.learning_rate * s.correction1;
  const float root_correction = std::sqrt(s.correction2);
  parallel_ranges(size, 32768, size, [=](Index, Index begin, Index end) {
#pragma omp simd
    for (Index i = begin; i < end; ++i) {
      const float g = gradient[i] * s.gradient_scale;
      const float mean = s.beta1 * m[i] + s.rest1 * g;
      const float square = s.beta2 * v[i] + s.rest2 * g * g;
      m[i] = mean;
      v[i] = square;
      parameter[i] = parameter[i] * keep - step * mean / (std::sqrt(square) * root_correction + s.epsilon);
    }
  });
}

}  // namespace glm3
