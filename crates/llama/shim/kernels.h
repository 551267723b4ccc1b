#pragma once

namespace weir {

// Throws what is wrong.
void check_kernels();

} // namespace weir
