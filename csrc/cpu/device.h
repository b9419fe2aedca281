#pragma once

#include "ops/device.h"

namespace vsa::cpu {

Device& device();

}  // namespace vsa::cpu
