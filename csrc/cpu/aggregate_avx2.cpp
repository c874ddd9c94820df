#include "cpu/aggregate_kernels.h"

namespace gag_fast {
extern const AggregateTables aggregate_avx2 = kTables;
}  // namespace gag_fast
