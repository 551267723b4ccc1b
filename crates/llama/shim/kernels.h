#pragma once

namespace weir {

// Returns the number of products that were right, and throws for the first wrong one. `spoil` falsifies an output of each.
int check_kernels(bool spoil);

} // namespace weir
