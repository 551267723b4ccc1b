#pragma once

namespace weir {

// How many products were right; throws what is wrong. With `spoil` one output of each is.
int check_kernels(bool spoil);

} // namespace weir
